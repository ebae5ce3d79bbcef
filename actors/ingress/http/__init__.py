"""HTTP/1.1 over TLS: connections and their limit, where they listen, request heads, and what is turned away."""
