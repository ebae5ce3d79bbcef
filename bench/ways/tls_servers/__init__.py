"""Servers that answer the same small and large bytes over TLS, and the client that asks them."""
