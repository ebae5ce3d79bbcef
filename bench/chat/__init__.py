"""Benches of the chat service."""
