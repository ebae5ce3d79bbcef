"""The process that lets remote clients in."""
