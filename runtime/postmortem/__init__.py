"""What a dead process has left, as plain data."""
