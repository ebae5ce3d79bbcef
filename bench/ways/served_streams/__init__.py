"""Servers that stream chat answers to very many clients over TLS 1.3, and the client that reads them."""
