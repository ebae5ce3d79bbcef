"""The command `slabwire`. Each command is a file of its own, found by entry point and imported when it is needed."""

from __future__ import annotations

from .root import root


def main() -> None:
    """Runs the command line of this process and exits with a status of `exits.Exit`."""
    root(prog_name="slabwire")


__all__ = ["main", "root"]
