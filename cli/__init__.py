"""The command `slabwire`. Each command is a file of its own, found by entry point and imported when it is needed."""

from __future__ import annotations

import signal

from ..runtime.host.descriptors import raise_limit
from ..runtime.host.inherited import put_right
from .root import root


def main() -> None:
    """Runs the command line of this process and exits with a status of `exits.Exit`."""
    put_right([signal.SIGCHLD])  # what else is ignored is meant to be, as SIGHUP by nohup
    raise_limit()
    root(prog_name="slabwire")


__all__ = ["main", "root"]
