"""multiprocessing.Queue: objects pickled by a thread of the sender, and unpickled by the receiver."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

from ...runtime.host.lifeline import die_with_parent
from ..harness.contestant import Payload, Seats, checksum

_END_WITHIN_S = 5.0


class MultiprocessingQueue:
    """For round trips and for a stream. A queue is inherited by multiprocessing's own processes alone."""

    name = "queue"
    title = "multiprocessing.Queue"

    def __init__(self, seats: Seats, sizes: Sequence[int] = ()) -> None:  # noqa: ARG002 - objects have any size
        context = multiprocessing.get_context("spawn")
        self._there: Any = context.Queue()
        self._back: Any = context.Queue()
        self._process = context.Process(
            target=serve, args=(self._there, self._back, seats.echo, os.getpid()), daemon=True
        )
        self._process.start()

    @property
    def pid(self) -> int:
        return int(self._process.pid or 0)

    def begin(self, nbytes: int, trips: int, *, spinning: bool) -> None:
        """Nothing: what comes says by its type what to do with it."""

    def prepare(self, payload: Payload) -> Payload:
        return payload

    def trip(self, payload: Payload) -> int:
        self._there.put(payload)
        return int(self._back.get())

    def carry(self, count: int) -> int:
        put = self._there.put
        for number in range(1, count + 1):
            put(number)
        put(None)
        return int(self._back.get())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._there.put("end")
            self._process.join(_END_WITHIN_S)
        if self._process.is_alive():
            self._process.kill()
        self._process.join()
        self._process.close()
        for each in (self._there, self._back):
            each.cancel_join_thread()
            each.close()


def serve(there: Any, back: Any, cpu: int, parent: int) -> None:
    """The echo: answers arrays with a checksum each, numbers with their sum when None comes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    die_with_parent(parent)
    os.sched_setaffinity(0, {cpu})
    total = 0
    while not isinstance(value := there.get(), str):
        if isinstance(value, int):
            total += value
        elif value is None:
            back.put(total)
            total = 0
        else:
            back.put(checksum(value))
