"""What a dead process, or a graph that has stopped, has left, as plain data."""
