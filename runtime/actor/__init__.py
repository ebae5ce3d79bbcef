"""What people subclass, and how its annotations become types and its code travels. Imports message/ and below."""
