"""The protocol for remote clients, without and with a socket; keys."""
