"""A call in flight: what has come back of it, and how its caller takes that."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from ..message.header import Kind

_ITEM, _ERROR = Kind.ITEM, Kind.ERROR


class Answerer(Protocol):
    """Whoever sends the items of streams, and may run ahead of their reader by so many only."""

    def note_read(self, request: int, items: int, /) -> None:
        """Tells how many items of a stream have been read in all."""


class Pending:
    """One call in flight, by the number of its request.

    `arrived` holds (kind, value or error) of what has come back, the oldest first; `notify`, where there is one, is
    called at each arrival. `answerer` is told of each item that is read, once it is known.
    """

    __slots__ = ("_items", "answerer", "arrived", "notify", "request")

    def __init__(self, request: int, notify: Callable[[], object] | None, answerer: Answerer | None = None) -> None:
        self.request = request
        self.notify = notify
        self.answerer = answerer
        self.arrived: deque[tuple[Kind, Any]] = deque()
        self._items = 0

    def next_kind(self) -> Kind:
        """The kind of the oldest that has arrived."""
        return self.arrived[0][0]

    def result(self) -> Any:
        """Takes the oldest that has arrived: its value. Raises the error that came in place of one."""
        kind, value = self.arrived.popleft()
        if kind is _ITEM and self.answerer is not None:
            self._items += 1
            self.answerer.note_read(self.request, self._items)
        try:
            if kind is _ERROR:
                raise value
            return value
        finally:
            del value  # an error that its own frame held would keep all frames above alive, and the arrays in them
