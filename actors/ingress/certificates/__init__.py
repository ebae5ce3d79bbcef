"""Certificates: read, watched, and made for development."""
