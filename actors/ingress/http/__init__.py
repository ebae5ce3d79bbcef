"""HTTP/1.1 over TLS: connections and their limit, certificates, request heads, and what is turned away."""
