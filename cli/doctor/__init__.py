"""What `slabwire doctor` looks at."""
