"""Lines of logs: their times, their files, and what happens when the disk is full."""
