"""A remote client's half of the protocol: calls in flight, credit of streams, what a lost connection means. No I/O."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from copy import copy
from typing import Any, NamedTuple

from ..dataplane.pending import Pending
from ..errors import (
    ClientClosed,
    Disconnected,
    MessageError,
    ProtocolError,
    SlabwireError,
    error_from_wire,
    mark_not_begun,
)
from ..message.header import Kind as Arrival
from ..message.sent_stream import check_plain
from .exposed_ports import ExposedPorts
from .frame_codec import pack_value, unpack_value
from .items_message import Delivery, unpack_items
from .protocol import Frame, FrameKind, Head, pack_head, unpack_head
from .sent_stream import RemoteSentStream
from .session_states import SESSION, Event, State

# Items of one stream that may be on their way: enough to keep a network busy, few enough to wait in a client's memory.
WINDOW = 64
_ANSWERS: dict[str, Arrival] = {
    FrameKind.REPLY: Arrival.REPLY,
    FrameKind.ITEM: Arrival.ITEM,
    FrameKind.END: Arrival.END,
    FrameKind.ERROR: Arrival.ERROR,
}


class Packed(NamedTuple):
    """A call that was checked. `source` is what it sends as a stream; None for nothing."""

    target: str
    payload: list[Frame]
    is_stream: bool  # its answer
    source: Any


class Session:
    """Messages to be sent pile up in `outbox`; `receive` takes in what came. The owner of the socket moves both.

    `outbox` may be filled from any thread, all else is one thread's at a time.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self.state = State.UNCONNECTED
        self.ports = ExposedPorts("", ())  # of the last welcome
        self.verdict = Pending(0, None)  # something has arrived for it where the hello was answered
        self.refusal: SlabwireError | None = None  # of a session that is REFUSED
        self.outbox: deque[list[Frame]] = deque()
        # Where tasks send streams: called when something of one lies in the outbox.
        self.said: Callable[[], object] | None = None
        self._pending: dict[int, Pending] = {}
        self._last_id = 0

    @property
    def is_ready(self) -> bool:
        """Whether a call may begin."""
        return self.state is State.READY

    # -- the connection ----------------------------------------------------------------------------------------------

    def connected(self, event: Event = Event.CONNECTED) -> None:
        """The transport is there (again), or (`ASKED_AGAIN`) somebody has heard a refusal: says hello."""
        self._pass(event)
        self._greet()

    def _pass(self, event: Event) -> None:
        self.state = SESSION.after(self.state, event)
        self.verdict.arrived.clear()
        if self.state not in (State.UNCONNECTED, State.GREETED):
            self._arrive(self.verdict, Arrival.REPLY, None)

    def _greet(self) -> None:
        if self.state is State.GREETED:
            self.outbox.clear()
            self._say(Head(FrameKind.HELLO, items=True))

    def lost(self) -> None:
        """The transport is gone: every call in flight ends with Disconnected."""
        self._fall(Event.LOST, None)

    def turned_away(self, error: SlabwireError) -> None:
        """There will be no welcome: every call in flight ends with the error."""
        self.refusal = mark_not_begun(copy(error))
        self._fall(Event.TURNED_AWAY, error)

    def close(self) -> None:
        """Every call in flight ends with ClientClosed, and none begins any more."""
        self._fall(Event.CLOSED, ClientClosed("the client was closed"))

    def say_bye(self) -> None:
        """Tells the gateway, where it knows this client, that it leaves."""
        if self.is_ready:
            self._say(Head(FrameKind.BYE))

    def take_refusal(self) -> SlabwireError | None:
        """Why there will be no welcome, for one caller that waits for it. Says hello anew, for the next call."""
        if self.state is not State.REFUSED:
            return None
        self.connected(Event.ASKED_AGAIN)
        return self.refusal

    def _fall(self, event: Event, error: SlabwireError | None) -> None:
        self._pass(event)
        unsent = self._unsent()
        self.outbox.clear()
        for pending in list(self._pending.values()):
            gone = error or Disconnected(f"{self._where()} went away while the call was in flight")
            self._arrive(
                pending, Arrival.ERROR, self._never_left() if pending.request in unsent and not error else gone
            )

    def _say(self, head: Head) -> None:
        self.outbox.append([pack_head(head), *pack_value(None)])

    def _where(self) -> str:
        return f"graph {self.ports.graph!r} at {self.address}" if self.ports.graph else self.address

    def _never_left(self) -> SlabwireError:
        return mark_not_begun(Disconnected(f"{self._where()} went away before the call left"))

    def _unsent(self) -> set[int]:
        """The calls that lie in the outbox."""
        heads = (unpack_head(frames) for frames in list(self.outbox))
        return {head.id for head in heads if head.kind == FrameKind.CALL}

    # -- calls -------------------------------------------------------------------------------------------------------

    def pack(self, target: str, args: tuple[Any, ...], named: dict[str, Any], *, stream: bool) -> Packed:
        """A call, checked. Raises UnknownPort or MessageError."""
        if not self.ports.graph:
            raise Disconnected(f"nothing has answered at {self.address} yet")
        fields = self.ports.fields(target, args, named, stream=stream)
        source = None
        if (sent := self.ports.sent_stream(target)) is not None:
            fields = dict(fields)
            source = self._checked_source(target, sent, fields.pop(sent))
        return Packed(target, pack_value(fields, is_fields=True), stream, source)

    def _checked_source(self, target: str, field: str, source: Any) -> Any:
        if not self.ports.takes_streams:
            raise MessageError(
                f"{target} takes a stream in '{field}', and the gateway of {self._where()} takes none from remote "
                "clients; update slabwire there, or call it from that host"
            )
        if self.said is None:
            check_plain(target, field, source)
        return source

    def begin(
        self, call: Packed, timeout_s: float | None, notify: Callable[[], object] | None, *, key: str = ""
    ) -> Pending:
        """Sends a call. Raises Disconnected if the connection was lost since it was ready: who says hello anew drops
        what was to be sent.
        """
        if not self.is_ready:
            raise self._never_left()
        self._last_id += 1
        pending = self._pending[self._last_id] = Pending(self._last_id, notify, self)
        sends = call.source is not None
        if sends:
            pending.stream = RemoteSentStream(self.outbox, pending.request, call.source, self.said)
        credit = WINDOW if call.is_stream else 0
        about = pending.request, call.target, call.is_stream, timeout_s, credit
        head = Head(FrameKind.CALL, *about, key=key, sends=sends)
        self.outbox.append([pack_head(head), *call.payload])
        return pending

    def cancel(self, pending: Pending) -> None:
        """The caller has lost interest: tells the graph, if the call has not ended. Any thread, at any time."""
        if self._pending.get(pending.request) is pending:  # not a call of that number of another connection
            self._finish(pending)
            self._say(Head(FrameKind.CANCEL, pending.request))

    def _finish(self, pending: Pending) -> None:
        """The call has ended: from now on nobody answers it, and nothing more of its stream is sent."""
        self._pending.pop(pending.request, None)
        if pending.stream is not None:
            pending.stream.end()

    def note_read(self, request: int, items: int) -> None:
        """So many items of a stream have been read in all: grants the graph more. Any thread."""
        pending = self._pending.get(request)
        if pending is not None:
            self._say(Head(FrameKind.CREDIT, request, credit=items - pending.told))

    # -- what comes --------------------------------------------------------------------------------------------------

    def receive(self, frames: Sequence[Frame]) -> None:
        """Takes in one message. What no correct gateway sends ends all calls with ProtocolError."""
        try:
            head = unpack_head(frames)
            if head.kind == FrameKind.WELCOME:
                self._welcome(head, unpack_value(frames[1:]))
            elif head.kind == FrameKind.ERROR and not head.id:
                self._hear_refusal(error_from_wire(head.code, str(unpack_value(frames[1:]))))
            elif head.kind == FrameKind.ITEMS:
                for each in unpack_items(frames[1:]):
                    self._deliver(each)
            elif head.kind == FrameKind.CREDIT:
                self._hear_credit(head)
            elif head.id in self._pending and head.kind in _ANSWERS:
                self._answer(self._pending[head.id], head, frames[1:])
        except SlabwireError as error:
            text = f"what answers at {self.address} is no graph that can be understood: {error}"
            self.turned_away(ProtocolError(text))

    def _welcome(self, head: Head, welcome: Any) -> None:
        if not isinstance(welcome, dict) or not isinstance(welcome.get("graph"), str):
            raise ProtocolError("the welcome names no graph")
        self.ports = ExposedPorts(welcome["graph"], welcome.get("ports"), takes_streams=head.sends)
        self._pass(Event.WELCOMED)

    def _hear_refusal(self, error: SlabwireError) -> None:
        if not isinstance(error, Disconnected):
            self.turned_away(error)
            return
        self._fall(Event.FORGOTTEN, error)
        self._greet()

    def _hear_credit(self, head: Head) -> None:
        pending = self._pending.get(head.id)
        if pending is not None and isinstance(pending.stream, RemoteSentStream):
            pending.stream.grant(head.credit, head.nbytes)

    def _answer(self, pending: Pending, head: Head, frames: Sequence[Frame]) -> None:
        try:
            value = unpack_value(frames)
        except SlabwireError as error:
            self.cancel(pending)
            self._arrive(pending, Arrival.ERROR, error)
            return
        if head.kind == FrameKind.ERROR:
            value = error_from_wire(head.code, str(value))
            if head.not_begun:
                mark_not_begun(value)
        self._arrive(pending, _ANSWERS[head.kind], value)

    def _deliver(self, delivery: Delivery) -> None:
        """Items of one stream, and perhaps its end."""
        pending = self._pending.get(delivery.id)
        if pending is None:  # cancelled, while these were on their way
            return
        if pending.reader is None:
            pending.arrived.extend((Arrival.ITEM, value) for value in delivery.values)
        else:
            for value in delivery.values:
                pending.reader.add(value)
        if delivery.is_over:
            self._arrive(pending, Arrival.END, None)
        elif delivery.values and pending.reader is None and pending.notify is not None:
            pending.notify()

    def _arrive(self, pending: Pending, kind: Arrival, value: Any) -> None:
        if pending.stream is not None and kind is not Arrival.ITEM and pending.stream.error is not None:
            kind, value = Arrival.ERROR, pending.stream.error  # the caller's own
        if kind is Arrival.ITEM and pending.reader is not None:
            pending.reader.add(value)
            return
        pending.arrived.append((kind, value))
        if kind is not Arrival.ITEM:
            self._finish(pending)
        if pending.notify is not None:
            pending.notify()
