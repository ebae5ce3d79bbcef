"""The end of TLS: certificates, handshakes, and transports on which plain protocols run."""
