"""Streams that one remote client's calls send: items wait here, a few and so many bytes, until the graph takes them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Any

from ..error_text import sendable
from ..errors import Overloaded, ProtocolError, SlabwireError, error_from_wire
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
    """The stream of one call. What waits, and what was taken last and may wait for memory, counts in the `budget`."""

    def __init__(self, number: int, peer: InboundConnection, budget: Budget) -> None:
        self._number = number
        self._peer = peer
        self._budget = budget
        self._arrived: deque[tuple[Head, list[Frame]]] = deque()
        self._broken: SlabwireError | None = None  # ends it, without what waits
        self._granted = self._came = 0
        self._held_nbytes = self._taken_nbytes = 0  # in the budget; of these, of what was taken last
        self._returned_nbytes = 0  # and not told
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
        nbytes = _ITEM_NBYTES + sum(map(len, frames))
        if not self._budget.has_room(nbytes):
            self._broken = Overloaded(
                f"requests of {self._budget.used_nbytes} bytes of this client, with the items of its streams, wait at "
                "this gateway, or those of all clients are too many; send fewer streams of such items at a time"
            )
            self._let_go()
            return
        self._budget.take(nbytes)
        self._held_nbytes += nbytes
        self._arrived.append((head, [bytes(each) if len(each) <= _COPY_UP_TO_NBYTES else each for each in frames]))

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # -- what goes ---------------------------------------------------------------------------------------------------

    def allow(self, items: int) -> None:
        """So many may be pulled in all. What was taken last has gone by now. Tells the client."""
        self._give_back(self._taken_nbytes)
        self._taken_nbytes = 0
        more = items - self._granted
        if self._has_ended or self._is_closed or not (more > 0 or self._returned_nbytes >= SENT_WINDOW_NBYTES // 2):
            return
        head = Head(FrameKind.CREDIT, self._number, credit=max(0, more), nbytes=self._returned_nbytes)
        self._granted = max(items, self._granted)
        self._returned_nbytes = 0
        self._peer.send([pack_head(head), *pack_value(None)])

    async def __anext__(self) -> Any:
        while not (self._arrived or self._broken):
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        if self._broken is not None:
            raise self._broken
        head, frames = self._arrived.popleft()
        nbytes = sum(map(len, frames))
        self._taken_nbytes = _ITEM_NBYTES + nbytes
        if head.kind == FrameKind.END:
            raise StopAsyncIteration
        value = unpack_value(frames)
        if head.kind == FrameKind.ERROR:
            raise error_from_wire(head.code, sendable(value) if isinstance(value, str) else "")
        self._returned_nbytes += nbytes
        return value

    # -- the end -----------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """The call has ended: nobody takes what is left. Who waits for more is ended with the call."""
        self._is_closed = True
        self._let_go()

    def _let_go(self) -> None:
        self._arrived.clear()
        self._give_back(self._held_nbytes)
        self._taken_nbytes = 0

    def _give_back(self, nbytes: int) -> None:
        self._held_nbytes -= nbytes
        self._budget.give_back(nbytes)


class RemoteSources:
    """Those of one client, by the id of their calls."""

    def __init__(self, peer: InboundConnection, budget: Budget) -> None:
        self._peer = peer
        self._budget = budget
        self._open: dict[int, RemoteSource] = {}

    def open(self, number: int) -> RemoteSource:
        source = self._open[number] = RemoteSource(number, self._peer, self._budget)
        return source

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
