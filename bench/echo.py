"""The echoing process of a contestant: started once, it answers so many trips an order and sleeps in between.

    python -m slabwire.bench.echo MODULE DETAILS --fd N --cpu N --parent PID

`serve(orders, details)` of that module does the answering. The process ends when its orders do, or with its parent.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from typing import Any, NamedTuple

from ..runtime.lifeline import die_with_parent
from .contestant import Mode

_ORDER = struct.Struct("<?QQ")
_END_WITHIN_S = 5.0


class Order(NamedTuple):
    """`trips` payloads of `nbytes` come next. `spinning`: look for each without sleeping, where the way can."""

    spinning: bool
    nbytes: int
    trips: int


class EchoProcess:
    """The parent's side of it. `descriptors` are inherited under their numbers."""

    def __init__(self, module: str, cpu: int, details: dict[str, Any], descriptors: list[int]) -> None:
        self._orders, far = socket.socketpair()
        with far:
            options = ["--fd", str(far.fileno()), "--cpu", str(cpu), "--parent", str(os.getpid())]
            self._process = subprocess.Popen(
                [sys.executable, "-m", "slabwire.bench.echo", module, json.dumps(details), *options],
                stdin=subprocess.DEVNULL,
                pass_fds=[far.fileno(), *descriptors],
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def order(self, mode: Mode, nbytes: int, trips: int, *, may_spin: bool = True) -> None:
        self._orders.sendall(_ORDER.pack(may_spin and mode == Mode.HOT, nbytes, trips))

    def close(self, *, now: bool) -> None:
        """Waits for its end; `now` also in the middle of an order."""
        self._orders.close()
        if now:
            self._process.kill()
        try:
            self._process.wait(_END_WITHIN_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _received(orders: socket.socket) -> Iterator[Order]:
    while packed := orders.recv(_ORDER.size, socket.MSG_WAITALL):
        yield Order(*_ORDER.unpack(packed))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("module")
    parser.add_argument("details", type=json.loads)
    for name in ("fd", "cpu", "parent"):
        parser.add_argument(f"--{name}", type=int, required=True)
    options = parser.parse_args()
    # Ctrl-C reaches the whole foreground group; the parent alone decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    die_with_parent(options.parent)
    os.sched_setaffinity(0, {options.cpu})
    with socket.socket(fileno=options.fd) as orders:
        import_module(f".{options.module}", __package__).serve(_received(orders), options.details)


if __name__ == "__main__":
    main()
