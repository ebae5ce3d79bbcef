"""Counters and the flight recorder in shared memory, and what is made of them: metrics, traces."""
