"""The keys that session tickets are sealed with: a ring of them in kept memory, and the actor that turns it."""
