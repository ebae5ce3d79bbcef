"""The supervisor's process: `python -m slabwire.runtime.supervision.main --fd N`, started by who runs a graph."""

from __future__ import annotations

import argparse
import socket
import sys

from ..host.descriptors import raise_limit
from ..host.inherited import put_right
from .fork_server import Spawner


def main() -> int:
    """The process. What goes wrong before the graph is ready is told to the owner."""
    put_right()
    raise_limit()
    parser = argparse.ArgumentParser()
    parser.add_argument("--fd", type=int, required=True)
    owner = socket.socket(fileno=parser.parse_args().fd)
    try:
        spawner = Spawner()
    except OSError as error:
        from .supervisor import give_up

        return give_up(owner, error)
    try:
        from .supervisor import supervise  # while the fork server imports, too

        return supervise(owner, spawner)
    finally:
        spawner.close()


if __name__ == "__main__":
    sys.exit(main())
