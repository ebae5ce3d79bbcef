"""Ways to carry a payload to another process: ours and other people's, each with both of its ends in one file."""
