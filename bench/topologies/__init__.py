"""Benches by the shape of what is connected, and those of placement and start."""
