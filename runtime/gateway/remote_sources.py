"""Streams that one remote client's calls send: how far ahead of their readers, in items and in bytes."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from ..error_text import sendable
from ..errors import Overloaded, ProtocolError, SlabwireError, error_from_wire
from ..message.capacities import STREAM_WINDOW
from ..message.sent_stream import PacedSource
from ..remote.frame_codec import pack_value, unpack_value
from ..remote.protocol import SENT_WINDOW_NBYTES, Frame, FrameKind, Head, pack_head
from .budget import Budget
from .inbound_connections import InboundConnection

SENDS = frozenset((FrameKind.ITEM, FrameKind.END, FrameKind.ERROR))
# What came takes so much here beside its bytes.
_ITEM_NBYTES = 256
# A short frame may lie in a buffer of ZeroMQ with other messages, which then stays for it.
_COPY_UP_TO_NBYTES = 8192


class RemoteSource(PacedSource):
    """The stream of one call. What has come counts in the `budget` until it was read: it waits here, and then in shared
    memory. `settle_all()` looks what was read of all streams of this client.
    """

    def __init__(self, number: int, peer: InboundConnection, budget: Budget, settle_all: Callable[[], object]) -> None:
        self._number = number
        self._peer = peer
        self._budget = budget
        self._settle_all = settle_all
        self._read: Callable[[], int] = int  # zero: nothing was begun
        self._unread: deque[int] = deque()  # what each takes that was pulled, and not read
        self._settled = 0  # that were read
        self._arrived: deque[tuple[Head, list[Frame]]] = deque()
        self._broken: SlabwireError | None = None  # ends it, without what waits
        self._granted = self._came = 0
        self._held_nbytes = self._unread_nbytes = 0  # in the budget; of these, of what was pulled
        self._returned_nbytes = 0  # was pulled, which the client has not been told
        self._has_ended = self._is_closed = False
        self._waiter: asyncio.Future[None] | None = None

    # -- what comes --------------------------------------------------------------------------------------------------

    def put(self, head: Head, frames: Sequence[Frame]) -> None:
        """An item, the end, or an error. Raises ProtocolError for what no correct client sends."""
        if self._has_ended:
            raise ProtocolError(f"call {self._number} sends more of a stream that has ended")
        if head.kind == FrameKind.ITEM and self._came == self._granted:
            raise ProtocolError(f"call {self._number} sends more than the {self._granted} items that it may")
        self._came += 1
        self._has_ended = head.kind != FrameKind.ITEM
        if self._broken is None:
            self._hold(head, frames)
        self._wake()

    def _hold(self, head: Head, frames: Sequence[Frame]) -> None:
        nbytes = _nbytes_of(frames)
        if not self._budget.has_room(nbytes):
            self._settle_all()
        if not self._budget.has_room(nbytes):
            self._broken = Overloaded(
                f"requests of {self._budget.used_nbytes} bytes of this client, with the items of its streams, wait at "
                "this gateway, or those of all clients are too many; send fewer streams of such items at a time"
            )
            self._drop_arrived()
            return
        self._budget.take(nbytes)
        self._held_nbytes += nbytes
        self._arrived.append((head, [bytes(each) if len(each) <= _COPY_UP_TO_NBYTES else each for each in frames]))

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # -- what goes ---------------------------------------------------------------------------------------------------

    def begin(self, read: Callable[[], int]) -> None:
        self._read = read

    def can_give(self) -> bool:
        self.settle()
        return self._unread_nbytes < SENT_WINDOW_NBYTES

    def settle(self) -> int:
        """What was read takes nothing any more. Returns how many items may be pulled in all."""
        read = self._read()
        while self._unread and self._settled < read - 1:
            self._settled += 1
            nbytes = self._unread.popleft()
            self._unread_nbytes -= nbytes
            self._give_back(nbytes)
        return read - 1 + STREAM_WINDOW if read else 0

    def _grant(self) -> None:
        """Tells the client for what there is room."""
        most = self.settle()
        more = max(0, most - self._granted)
        if self._has_ended or self._is_closed or not (more or self._returned_nbytes >= SENT_WINDOW_NBYTES // 2):
            return
        head = Head(FrameKind.CREDIT, self._number, credit=more, nbytes=self._returned_nbytes)
        self._granted += more
        self._returned_nbytes = 0
        self._peer.send([pack_head(head), *pack_value(None)])

    async def __anext__(self) -> Any:
        self._grant()
        while not (self._arrived or self._broken):
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        if self._broken is not None:
            raise self._broken
        head, frames = self._arrived.popleft()
        self._unread.append(nbytes := _nbytes_of(frames))
        self._unread_nbytes += nbytes
        if head.kind == FrameKind.END:
            raise StopAsyncIteration
        value = unpack_value(frames)
        if head.kind == FrameKind.ERROR:
            raise error_from_wire(head.code, sendable(value) if isinstance(value, str) else "")
        self._returned_nbytes += nbytes - _ITEM_NBYTES
        return value

    # -- the end -----------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """The call has ended: nobody takes what is left. Who waits for more is ended with the call."""
        self._is_closed = True
        self._drop_arrived()
        self._give_back(self._held_nbytes)
        self._unread.clear()
        self._unread_nbytes = 0

    def _drop_arrived(self) -> None:
        self._arrived.clear()
        self._give_back(self._held_nbytes - self._unread_nbytes)

    def _give_back(self, nbytes: int) -> None:
        self._held_nbytes -= nbytes
        self._budget.give_back(nbytes)


def _nbytes_of(frames: Sequence[Frame]) -> int:
    return _ITEM_NBYTES + sum(map(len, frames))


class RemoteSources:
    """Those of one client, by the id of their calls."""

    def __init__(self, peer: InboundConnection, budget: Budget) -> None:
        self._peer = peer
        self._budget = budget
        self._open: dict[int, RemoteSource] = {}

    def open(self, number: int) -> RemoteSource:
        source = self._open[number] = RemoteSource(number, self._peer, self._budget, self.settle)
        return source

    def settle(self) -> None:
        """Gives back what items took that were read since: a stream on whose client it waits looks not by itself."""
        for each in self._open.values():
            each.settle()

    def put(self, head: Head, frames: Sequence[Frame]) -> bool:
        """Whether a call that is in flight sends a stream, which then has got what came. Raises ProtocolError."""
        source = self._open.get(head.id)
        if source is not None:
            source.put(head, frames)
        return source is not None

    def close(self, number: int) -> None:
        """A call has ended, if it sent a stream."""
        source = self._open.pop(number, None)
        if source is not None:
            source.close()
