"""What lies in a record: header, payload, values."""
