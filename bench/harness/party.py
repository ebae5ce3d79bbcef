"""A process of a contestant that turns an asyncio loop, and does between its turns what it is asked for.

    python -m slabwire.bench.harness.party MODULE:CLASS DETAILS --fd N --cpu N --parent PID

An object of that class of a module of this package, made with the details by name, does the work. What it is asked for
are its methods, by name; coroutines among them are awaited, one after the other. The process ends when nobody asks any
more, or with its parent; where there is a coroutine `close`, it is awaited first.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from inspect import isawaitable
from typing import Any

from ...runtime.host.descriptors import raise_limit
from ...runtime.host.lifeline import die_with_parent
from .contestant import BenchError
from .line import Line

_END_WITHIN_S = 5.0


def order(line: Line, who: str, what: str, *arguments: Any) -> None:
    """Asks `answer` at the other end, called `who`, for that method. Raises BenchError where it has ended."""
    try:
        line.say({"do": what, "with": arguments})
    except OSError:
        raise _ended(who, what) from None


def answered(line: Line, who: str, what: str) -> Any:
    """What the method gives that was asked for. Raises BenchError for what it raises, and where it has ended."""
    try:
        heard = line.hear()
    except (EOFError, OSError):
        raise _ended(who, what) from None
    if "failed" in heard:
        raise BenchError(f"{who} failed to do {what!r}: {heard['failed']}")
    return heard["done"]


def _ended(who: str, what: str) -> BenchError:
    return BenchError(f"{who} has ended before it could do {what!r}")


class Party:
    """The parent's side of it. `work` is "module:class"; without a `cpu` the kernel chooses."""

    def __init__(self, work: str, cpu: int | None = None, **details: Any) -> None:
        self._work = work
        here, far = socket.socketpair()
        with far:
            options = ["--fd", str(far.fileno()), "--parent", str(os.getpid())]
            options += [] if cpu is None else ["--cpu", str(cpu)]
            self._process = subprocess.Popen(
                [sys.executable, "-m", "slabwire.bench.harness.party", work, json.dumps(details), *options],
                stdin=subprocess.DEVNULL,
                pass_fds=[far.fileno()],
            )
        self._line = Line(here)

    @property
    def pid(self) -> int:
        return self._process.pid

    def ask(self, what: str, *arguments: Any) -> Any:
        """What that method gives. Raises BenchError for what it raises, and where the process has ended."""
        return self.begin(what, *arguments)()

    def begin(self, what: str, *arguments: Any) -> Callable[[], Any]:
        """As `ask`, whose answer is waited for by what this gives. One at a time."""
        order(self._line, self._work, what, *arguments)
        return lambda: answered(self._line, self._work, what)

    def close(self, *, now: bool) -> None:
        """Waits for its end; `now` also in the middle of an order."""
        self._line.close()
        if now:
            self._process.kill()
        try:
            self._process.wait(_END_WITHIN_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


async def _obey(work: str, details: dict[str, Any], orders: socket.socket) -> None:
    module, _, name = work.partition(":")
    worker = getattr(import_module(f"..{module}", __package__), name)(**details)
    try:
        await answer(worker, *await asyncio.open_unix_connection(sock=orders))
    except ConnectionError:
        return  # an answer found nobody: the bench was interrupted
    finally:
        if hasattr(worker, "close"):
            await worker.close()


async def answer(worker: Any, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Does what is asked for, until nobody asks any more."""
    while line := await reader.readline():
        order = json.loads(line)
        try:
            done = getattr(worker, order["do"])(*order["with"])
            said = {"done": await done if isawaitable(done) else done}
        except Exception as error:
            said = {"failed": f"{type(error).__name__}: {error}"}
        writer.write(json.dumps(said).encode() + b"\n")
        await writer.drain()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("work")
    parser.add_argument("details", type=json.loads)
    parser.add_argument("--cpu", type=int)
    for name in ("fd", "parent"):
        parser.add_argument(f"--{name}", type=int, required=True)
    options = parser.parse_args()
    # Ctrl-C reaches the whole foreground group; the parent alone decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    die_with_parent(options.parent)
    raise_limit()
    if options.cpu is not None:
        os.sched_setaffinity(0, {options.cpu})
    asyncio.run(_obey(options.work, options.details, socket.socket(fileno=options.fd)))


if __name__ == "__main__":
    main()
