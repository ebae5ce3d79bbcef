"""A graph as it is written, checked and compiled."""
