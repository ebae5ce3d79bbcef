"""The other process of a contestant: started once, it does so much an order and sleeps in between.

    python -m slabwire.bench.harness.echo MODULE:FUNCTION DETAILS --fd N --cpu N --parent PID

That function of a module of this package, `serve(orders, details)`, does the work. The process ends when its orders do,
or with its parent.
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
from types import TracebackType
from typing import Any, NamedTuple, Self

from ...runtime.host.lifeline import die_with_parent
from .contestant import Payload

_ORDER = struct.Struct("<?QQ")
_END_WITHIN_S = 5.0


class Order(NamedTuple):
    """`trips` payloads of `nbytes` come next. `spinning`: look for each without sleeping, where the way can."""

    spinning: bool
    nbytes: int
    trips: int


class EchoProcess:
    """The parent's side of it. `serve` is "module:function"; `descriptors` are inherited under their numbers."""

    def __init__(self, serve: str, cpu: int, details: dict[str, Any], descriptors: list[int]) -> None:
        self._orders, far = socket.socketpair()
        with far:
            options = ["--fd", str(far.fileno()), "--cpu", str(cpu), "--parent", str(os.getpid())]
            self._process = subprocess.Popen(
                [sys.executable, "-m", "slabwire.bench.harness.echo", serve, json.dumps(details), *options],
                stdin=subprocess.DEVNULL,
                pass_fds=[far.fileno(), *descriptors],
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def order(self, nbytes: int, trips: int, *, spinning: bool) -> None:
        self._orders.sendall(_ORDER.pack(spinning, nbytes, trips))

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


class Echoed:
    """A contestant whose other end is an EchoProcess; `_let_go` gives back what this end holds."""

    def __init__(self, echo: EchoProcess) -> None:
        self._echo = echo

    @property
    def pid(self) -> int:
        return self._echo.pid

    def begin(self, nbytes: int, trips: int, *, spinning: bool) -> None:
        self._echo.order(nbytes, trips, spinning=spinning)

    def prepare(self, payload: Payload) -> Payload:
        return payload

    def _let_go(self) -> None:
        """Nothing, unless a way has something to give back."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._echo.close(now=kind is not None)
        self._let_go()


def _received(orders: socket.socket) -> Iterator[Order]:
    while packed := orders.recv(_ORDER.size, socket.MSG_WAITALL):
        yield Order(*_ORDER.unpack(packed))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("serve")
    parser.add_argument("details", type=json.loads)
    for name in ("fd", "cpu", "parent"):
        parser.add_argument(f"--{name}", type=int, required=True)
    options = parser.parse_args()
    # Ctrl-C reaches the whole foreground group; the parent alone decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    die_with_parent(options.parent)
    os.sched_setaffinity(0, {options.cpu})
    module, _, function = options.serve.partition(":")
    with socket.socket(fileno=options.fd) as orders:
        getattr(import_module(f"..{module}", __package__), function)(_received(orders), options.details)


if __name__ == "__main__":
    main()
