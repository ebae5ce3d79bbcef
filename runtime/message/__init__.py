"""What lies in a record: its header, the encoded value, and the blocks that it lends."""
