"""Processes: actors in workers, a supervisor above them, clients beside them."""
