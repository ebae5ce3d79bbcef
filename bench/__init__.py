"""Benchmarks, each named by its topology; `slabwire bench` runs them."""
