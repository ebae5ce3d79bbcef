"""One call in flight: how long it may take, what has come back, and what the sender of that is told."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from ...shm.bell import now_ns
from ..errors import DeadlineExceeded, MessageError, SlabwireError
from ..message.header import Kind

if TYPE_CHECKING:
    from ..message.sent_stream import SentStream

# A reader tells of so many items at once: half of those that a stream may run ahead.
TELL_EVERY = 32
_LATEST_NS = (1 << 63) - 1
_ITEM, _ERROR = Kind.ITEM, Kind.ERROR


class Answerer(Protocol):
    """The sender of the items of streams, which may run ahead of their reader by so many only."""

    def note_read(self, request: int, items: int, /) -> None:
        """Tells how many items of a stream have been read in all."""


class Reader(Protocol):
    """Who reads a stream, and keeps its items until then."""

    def add(self, item: Any, /) -> None:
        """The next item has come."""


class Pending:
    """One call in flight, by the number of its request.

    `arrived` holds (kind, value or error) of what has come back, the oldest first; `notify`, where there is one, is
    called at each arrival. Where there is a `reader` it gets the items, which are no arrivals then. `answerer`, once it
    is known, is told by the portion how many items were `read`: `told` is what it knows. `stream` is the one that the
    call sends, if it sends any.
    """

    __slots__ = ("answerer", "arrived", "notify", "read", "reader", "request", "stream", "told")

    def __init__(self, request: int, notify: Callable[[], object] | None, answerer: Answerer | None = None) -> None:
        self.request = request
        self.notify = notify
        self.answerer = answerer
        self.reader: Reader | None = None
        self.stream: SentStream | None = None
        self.arrived: list[tuple[Kind, Any]] = []  # few at a time: so a list, which takes no room while it is empty
        self.read = self.told = 0

    def next_kind(self) -> Kind:
        """The kind of the oldest that has arrived."""
        return self.arrived[0][0]

    def tell_read(self) -> None:
        """Tells the sender how many items have been read, where that is worth telling."""
        if self.read - self.told >= TELL_EVERY and self.answerer is not None:
            self.answerer.note_read(self.request, self.read)
            self.told = self.read

    def result(self) -> Any:
        """Takes the oldest that has arrived: its value. Raises the error that came in place of one."""
        kind, value = self.arrived.pop(0)
        if kind is _ITEM:
            self.read += 1
            self.tell_read()
        try:
            if kind is _ERROR:
                raise value
            return value
        finally:
            del value  # an error that its own frame held would keep all frames above alive, and the arrays in them


def deadline_of(timeout_s: float | None) -> int:
    """The deadline, on CLOCK_MONOTONIC in nanoseconds, of a call that may take `timeout_s`; 0 for none.

    Raises MessageError for what is no time.
    """
    if timeout_s is None or timeout_s == math.inf:
        return 0
    if isinstance(timeout_s, str) or not timeout_s >= 0:
        raise MessageError(f"timeout_s is {timeout_s!r}; it must be a number of seconds, or None to wait for ever")
    return min(now_ns() + int(timeout_s * 1e9), _LATEST_NS)


def timed_out(target: str) -> SlabwireError:
    """The error of a caller whose time has run out."""
    return DeadlineExceeded(f"{target} did not answer in time; give it longer by timeout_s=, or see `slabwire top`")
