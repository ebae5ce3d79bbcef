"""Whether the model's answers are those of a reference."""
