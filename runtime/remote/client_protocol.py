"""A remote client's half of the protocol: calls in flight, credit of streams, what a lost connection means. No I/O."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from ..errors import Disconnected, ProtocolError, SlabwireError, error_from_wire, untouched
from .exposed_ports import ExposedPorts
from .frame_codec import pack_value, unpack_value
from .protocol import Frame, Head, Kind, pack_head, unpack_head

# Items of one stream that may be on their way: enough to keep a network busy, few enough to wait in a client's memory.
WINDOW = 64
# Credit is renewed in portions, not item by item.
_RENEW_AT = WINDOW // 2


class Pending:
    """One call in flight. `arrived` holds (kind, value or error) of what has come back; `notify` says so."""

    __slots__ = ("arrived", "ended", "id", "notify", "stream", "taken")

    def __init__(self, number: int, notify: Callable[[], None], *, stream: bool) -> None:
        self.id = number
        self.notify = notify
        self.stream = stream
        self.ended = False
        self.taken = 0
        self.arrived: deque[tuple[str, Any]] = deque()


class Session:
    """Messages to be sent pile up in `outbox`; `receive` takes in what came. Whoever has the socket moves both.

    `outbox` may be filled from any thread, all else is one thread's at a time.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self.ports: ExposedPorts | None = None  # of the last welcome
        self.refused: SlabwireError | None = None  # why there will be no welcome
        self.is_ready = False
        self.outbox: deque[list[Frame]] = deque()
        self._pending: dict[int, Pending] = {}
        self._last_id = 0

    @property
    def graph(self) -> str:
        return self.ports.graph if self.ports is not None else ""

    # -- the connection ----------------------------------------------------------------------------------------------

    def connected(self) -> None:
        """The transport is there (again): says hello."""
        self.is_ready = False
        self.refused = None
        self.outbox.clear()
        self.outbox.append([pack_head(Head(Kind.HELLO)), *pack_value(None)])

    def lost(self, error: SlabwireError | None = None) -> None:
        """The transport is gone: every call in flight ends with Disconnected, or the error."""
        self.is_ready = False
        unsent = self._unsent()
        self.outbox.clear()
        for pending in list(self._pending.values()):
            if pending.id in unsent and error is None:
                gone: SlabwireError = self._never_left()
            else:
                gone = error or Disconnected(f"{self._where()} went away while the call was in flight")
            self._arrive(pending, Kind.ERROR, gone)

    def _where(self) -> str:
        return f"graph {self.graph!r} at {self.address}" if self.graph else self.address

    def _never_left(self) -> SlabwireError:
        return untouched(Disconnected(f"{self._where()} went away before the call left"))

    def _unsent(self) -> set[int]:
        """The calls that lie in the outbox."""
        heads = (unpack_head(frames) for frames in list(self.outbox))
        return {head.id for head in heads if head.kind == Kind.CALL}

    # -- calls -------------------------------------------------------------------------------------------------------

    def pack(self, target: str, args: tuple[Any, ...], named: dict[str, Any], *, stream: bool) -> list[Frame]:
        """The payload of a call, checked. Raises UnknownPort or MessageError."""
        if self.ports is None:
            raise Disconnected(f"nothing has answered at {self.address} yet")
        return pack_value(self.ports.fields(target, args, named, stream=stream), is_fields=True)

    def begin(
        self,
        target: str,
        payload: list[Frame],
        timeout_s: float | None,
        notify: Callable[[], None],
        *,
        stream: bool,
        key: str = "",
    ) -> Pending:
        """Sends a call. Raises Disconnected if the connection was lost since it was ready: who says hello anew drops
        what was to be sent.
        """
        if not self.is_ready:
            raise self._never_left()
        self._last_id += 1
        pending = self._pending[self._last_id] = Pending(self._last_id, notify, stream=stream)
        credit = WINDOW if stream else 0
        head = Head(Kind.CALL, pending.id, target, stream=stream, timeout_s=timeout_s, credit=credit, key=key)
        self.outbox.append([pack_head(head), *payload])
        return pending

    def cancel(self, pending: Pending) -> None:
        """The caller has lost interest: tells the graph, if the call has not ended. Any thread, at any time."""
        if self._pending.get(pending.id) is pending:  # not a call of that number of another connection
            del self._pending[pending.id]
            self.outbox.append([pack_head(Head(Kind.CANCEL, pending.id)), *pack_value(None)])

    def take(self, pending: Pending) -> tuple[str, Any]:
        """The oldest of what has arrived; grants the graph more items of a stream."""
        kind, value = pending.arrived.popleft()
        if kind == Kind.ITEM:
            pending.taken += 1
            if pending.taken == _RENEW_AT and not pending.ended:
                pending.taken = 0
                head = Head(Kind.CREDIT, pending.id, credit=_RENEW_AT)
                self.outbox.append([pack_head(head), *pack_value(None)])
        return kind, value

    # -- what comes --------------------------------------------------------------------------------------------------

    def receive(self, frames: Sequence[Frame]) -> None:
        """Takes in one message. What no correct gateway sends ends all calls with ProtocolError."""
        try:
            head = unpack_head(frames)
            if head.kind == Kind.WELCOME:
                self._welcome(unpack_value(frames[1:]))
            elif head.kind == Kind.ERROR and not head.id:
                self._end_all(error_from_wire(head.code, str(unpack_value(frames[1:]))))
            elif head.id in self._pending and head.kind in _ANSWERS:
                self._answer(self._pending[head.id], head, frames[1:])
        except SlabwireError as error:
            self._end_all(ProtocolError(f"what answers at {self.address} is no graph that can be understood: {error}"))

    def _welcome(self, welcome: Any) -> None:
        if not isinstance(welcome, dict) or not isinstance(welcome.get("graph"), str):
            raise ProtocolError("the welcome names no graph")
        self.ports = ExposedPorts(welcome["graph"], welcome.get("ports"))
        self.is_ready = True

    def _end_all(self, error: SlabwireError) -> None:
        self.refused = error
        self.lost(error)
        if isinstance(error, Disconnected):
            self.connected()  # it does not know us any more: hello again

    def _answer(self, pending: Pending, head: Head, frames: Sequence[Frame]) -> None:
        try:
            value = unpack_value(frames)
        except SlabwireError as error:
            self.cancel(pending)
            pending.ended = True
            pending.arrived.append((Kind.ERROR, error))
            pending.notify()
            return
        if head.kind == Kind.ERROR:
            value = error_from_wire(head.code, str(value))
            if head.not_begun:
                untouched(value)
        self._arrive(pending, head.kind, value)

    def _arrive(self, pending: Pending, kind: str, value: Any) -> None:
        pending.arrived.append((kind, value))
        if kind != Kind.ITEM:
            pending.ended = True
            self._pending.pop(pending.id, None)
        pending.notify()


_ANSWERS = frozenset((Kind.REPLY, Kind.ITEM, Kind.END, Kind.ERROR))


def result_of(kind: str, value: Any) -> Any:
    """The value that came back. Raises the error that did."""
    if kind == Kind.ERROR:
        raise value
    return value
