"""Which worker runs on which core, and why. No I/O."""
