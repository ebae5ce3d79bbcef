"""The streams of one remote client: read together, paused one by one, sent by as few messages as there can be."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import Any

from ...shm.bell import now_ns
from ..actor.stream_group import IncomingStream
from ..clients.async_connection import AsyncLocalConnection
from ..dataplane.callable_ports import Request
from ..dataplane.pending import timed_out
from ..dataplane.stream_group import GroupedStream, ReadGroup
from ..errors import Overloaded, ProtocolError, SlabwireError, mark_not_begun
from ..remote.frame_codec import pack_value
from ..remote.items_message import FULL_FROM_NBYTES, MOST_VALUE_NBYTES, ItemsMessage
from ..remote.protocol import MOST_CREDIT, Frame, FrameKind, Head, pack_head, trace_of
from .budget import Budget
from .error_frames import error_frames
from .inbound_connections import InboundConnection

logger = logging.getLogger("slabwire")

# Of all clients of a gateway, by one connection, whose lanes to an actor take 7 MiB.
MOST_STREAMS = 4096
# Of one client's items that wait: as much as may wait of what was sent to it.
MOST_HELD_OF_ONE_NBYTES = 256 << 20
# A client that is behind is looked at so often: nobody tells when it has caught up.
_LOOK_EVERY_S = 0.02
# What an item takes beside its bytes.
_ITEM_NBYTES = 128


class RemoteStream:
    """One of them. `waiting` are the items that have come and were not sent, the oldest first, as frames. `nbytes` is
    what its request takes, `held_nbytes` what the waiting items take.
    """

    __slots__ = (
        "credit",
        "error",
        "held_nbytes",
        "is_over",
        "nbytes",
        "number",
        "reader",
        "target",
        "timer",
        "waiting",
    )

    def __init__(self, number: int, target: str, reader: GroupedStream, credit: int, nbytes: int) -> None:
        self.number = number
        self.target = target
        self.reader = reader
        self.credit = credit
        self.nbytes = nbytes
        self.waiting: deque[list[Frame]] = deque()
        self.held_nbytes = 0
        self.is_over = False  # nothing comes behind what waits
        self.error: SlabwireError | None = None
        self.timer: asyncio.TimerHandle | None = None


class RemoteStreams:
    """Over the gateway's connection for streams. `takes_items`: the client said so. `ended(number, nbytes)` is
    called at each end with the id of the call and what the request took. One loop.

    A stream whose client grants no credit, or does not read, is paused. At most 64 items of it wait here.
    """

    def __init__(
        self,
        peer: InboundConnection,
        connection: AsyncLocalConnection,
        held: Budget,
        ended: Callable[[int, int], object],
        *,
        takes_items: bool,
    ) -> None:
        self._peer = peer
        self._caller = connection.local.caller
        self._held = Budget(MOST_HELD_OF_ONE_NBYTES, within=held)
        self._ended = ended
        self._takes_items = takes_items
        self._loop = asyncio.get_running_loop()
        self._group = ReadGroup(connection.calls, self._loop, self._on_items)
        self._streams: dict[int, RemoteStream] = {}
        self._ready: dict[RemoteStream, None] = {}  # those of which something may be sent, in order
        self._flushing: asyncio.Handle | None = None
        self._gathered = ItemsMessage()

    def __len__(self) -> int:
        return len(self._streams)

    def __contains__(self, number: int) -> bool:
        return number in self._streams

    def begin(self, head: Head, fields: dict[str, Any], deadline_ns: int, nbytes: int) -> None:
        """A call that is answered by a stream. Raises MessageError, OutOfMemory, Disconnected, or Overloaded."""
        if self._caller.in_flight >= MOST_STREAMS:
            text = f"{MOST_STREAMS} streams are open at this gateway; try again when some have ended"
            raise mark_not_begun(Overloaded(text))
        request: Request = self._caller.checked(head.port, (), fields, stream=True)
        how: dict[str, Any] = {"trace": trace_of(head.traceparent), "key": head.key}
        reader = self._group.join(head.port, request, deadline_ns=deadline_ns, **how)
        reader.tag = stream = RemoteStream(head.id, head.port, reader, head.credit, nbytes)
        self._streams[head.id] = stream
        if deadline_ns:
            left_s = max(0.0, (deadline_ns - now_ns()) / 1e9)
            stream.timer = self._loop.call_later(left_s, self._expire, stream)

    def grant(self, number: int, items: int) -> None:
        """The client has room for so many items more. Raises ProtocolError for more than it may have."""
        stream = self._streams[number]
        if stream.credit + items > MOST_CREDIT:
            text = f"a stream was granted {stream.credit + items} items; at most {MOST_CREDIT} may be out"
            raise ProtocolError(text)
        stream.credit += items
        if stream.waiting:
            self._note(stream)

    # -- what comes --------------------------------------------------------------------------------------------------

    def _on_items(self, reader: IncomingStream, items: list[Any]) -> None:
        stream: RemoteStream = reader.tag
        if self._streams.get(stream.number) is not stream:
            return
        try:
            self._hold(stream, items)
        except Overloaded as error:
            self._end_at_once(stream, error)
            return
        except SlabwireError as error:
            self._break_off(stream, error)
        except Exception as error:  # a fault of ours; the client must not wait for ever
            logger.exception("items for a remote client failed")
            self._break_off(stream, SlabwireError(f"the gateway failed: {type(error).__name__}"))
        else:
            stream.is_over = reader.is_over
            if reader.error is not None:
                stream.error = _told(reader.error)
        reader.pause()  # they are read when they were sent
        self._note(stream)

    def _hold(self, stream: RemoteStream, items: list[Any]) -> None:
        """Packs items and lets them wait. Raises MessageError for what cannot be sent, Overloaded for too much."""
        packed = [pack_value(each) for each in items]
        nbytes = sum(map(_nbytes_held, packed))
        if not self._held.has_room(nbytes):
            raise Overloaded(
                f"items of {self._held.used_nbytes} bytes wait at the gateway until this client takes them, or those "
                "of all clients are too many; have fewer streams of such items, or put the bulk into arrays"
            )
        self._held.take(nbytes)
        stream.held_nbytes += nbytes
        stream.waiting += packed

    @staticmethod
    def _break_off(stream: RemoteStream, error: SlabwireError) -> None:
        """Behind what waits the stream ends with an error."""
        stream.reader.cancel()
        stream.is_over, stream.error = True, error

    def _expire(self, stream: RemoteStream) -> None:
        """Its deadline has passed."""
        self._end_at_once(stream, timed_out(stream.target))

    def _end_at_once(self, stream: RemoteStream, error: SlabwireError) -> None:
        """With an error, without what waits."""
        stream.reader.cancel()
        self._finish(stream)
        self._peer.send(error_frames(error, stream.number))

    # -- what goes ---------------------------------------------------------------------------------------------------

    def _note(self, stream: RemoteStream) -> None:
        """Something may be sent of a stream. What else comes in this turn of the loop goes with it."""
        self._ready[stream] = None
        if self._flushing is None:
            self._flushing = self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = None
        ready, self._ready = self._ready, {}
        held_up = []
        for stream in ready:
            if self._peer.is_behind:
                self._ready[stream] = None
            elif not self._send_of(stream):
                held_up.append(stream)
        self._send_gathered()
        self._ready.update(dict.fromkeys(held_up))  # behind those that had no turn
        if self._ready:
            self._flushing = self._loop.call_later(_LOOK_EVERY_S, self._flush)

    def _send_of(self, stream: RemoteStream) -> bool:
        """Sends what may be sent of one stream; False where the client has fallen behind meanwhile."""
        before_nbytes = stream.held_nbytes
        values = self._take_small(stream)
        while stream.waiting and stream.credit and not self._peer.is_behind:
            self._gather(stream, values)  # what was before it goes before it
            self._send_gathered_of(values)
            self._send_first(stream)
            values = self._take_small(stream)
        self._held.give_back(before_nbytes - stream.held_nbytes)
        is_done = stream.is_over and not stream.waiting
        if is_done and stream.error is None and self._takes_items:
            self._gather(stream, values, is_over=True)
        else:
            self._gather(stream, values)
            if is_done:
                self._send_gathered_of(values)
                self._peer.send(_end_frames(stream))
        if is_done:
            self._finish(stream)
        elif not stream.waiting:
            stream.reader.resume()
        return not (stream.waiting and stream.credit)

    def _take_small(self, stream: RemoteStream) -> list[bytes]:
        """The items in front that travel with others, against credit."""
        values: list[bytes] = []
        waiting = stream.waiting
        while self._takes_items and waiting and stream.credit and _is_small(waiting[0]):
            values.append(bytes(_next_frames(stream)[0]))
        return values

    def _send_first(self, stream: RemoteStream) -> None:
        """One item, by a message of its own."""
        self._peer.send([pack_head(Head(FrameKind.ITEM, stream.number)), *_next_frames(stream)])

    def _gather(self, stream: RemoteStream, values: list[bytes], *, is_over: bool = False) -> None:
        if values or is_over:
            self._gathered.add(stream.number, values, is_over=is_over)
            if self._gathered.nbytes >= FULL_FROM_NBYTES:
                self._send_gathered()

    def _send_gathered_of(self, values: list[bytes]) -> None:
        """Before anything else of a stream goes: what was gathered of it."""
        if values:
            self._send_gathered()

    def _send_gathered(self) -> None:
        if not self._gathered.is_empty:
            gathered, self._gathered = self._gathered, ItemsMessage()
            self._peer.send([_ITEMS_HEAD, gathered.payload()])

    # -- how they end ------------------------------------------------------------------------------------------------

    def _finish(self, stream: RemoteStream) -> None:
        """Its place and its id are free from now on. Twice does nothing more: while something is sent, the client may
        turn out to be gone, and with it all its streams.
        """
        if self._streams.get(stream.number) is not stream:
            return
        del self._streams[stream.number]
        self._ready.pop(stream, None)
        if stream.timer is not None:
            stream.timer.cancel()
        self._held.give_back(stream.held_nbytes)
        stream.waiting.clear()
        self._ended(stream.number, stream.nbytes)

    def cancel(self, number: int) -> None:
        """The client has lost interest."""
        stream = self._streams[number]
        stream.reader.cancel()
        self._finish(stream)

    def close(self, error: SlabwireError | None = None) -> None:
        """Cancels all: the client is gone, or is told this error of each."""
        for number in list(self._streams):
            self.cancel(number)
            if error is not None:
                self._peer.send(error_frames(error, number))
        self._group.close()
        if self._flushing is not None:
            self._flushing.cancel()


_ITEMS_HEAD = pack_head(Head(FrameKind.ITEMS))


def _nbytes_held(frames: list[Frame]) -> int:
    """What a packed item takes here. Its arrays lie where its actor has put them."""
    return len(frames[0]) + _ITEM_NBYTES


def _next_frames(stream: RemoteStream) -> list[Frame]:
    """The first item that waits, against credit."""
    frames = stream.waiting.popleft()
    stream.held_nbytes -= _nbytes_held(frames)
    stream.credit -= 1
    return frames


def _is_small(frames: list[Frame]) -> bool:
    return len(frames) == 1 and len(frames[0]) <= MOST_VALUE_NBYTES


def _told(error: BaseException) -> SlabwireError:
    return error if isinstance(error, SlabwireError) else SlabwireError(f"the gateway failed: {type(error).__name__}")


def _end_frames(stream: RemoteStream) -> list[Frame]:
    if stream.error is not None:
        return error_frames(stream.error, stream.number)
    return [pack_head(Head(FrameKind.END, stream.number)), *pack_value(None)]
