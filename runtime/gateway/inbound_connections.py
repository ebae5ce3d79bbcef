"""The connections of a gateway: whether anybody is at the other end, and what waits for whoever is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import zmq

from ..remote.protocol import Frame
from .backlog import Backlog
from .unwanted_connections import inode_of, shut_down

# Of answers for one client, besides the one that came last: as much as one message may have.
MOST_WAITING_NBYTES = 256 << 20
# For all clients together: beyond it the one with most has to go.
MOST_WAITING_OF_ALL_NBYTES = 1 << 30
# A client that is so far behind has its streams paused. Its answers are copied, so it keeps no block of an actor.
BEHIND_FROM_NBYTES = 16 << 20
# How soon a connection that has ended is noticed, and the work for it cancelled.
LOOK_EVERY_S = 0.25


# Sends a message by the door that the connection came by. Raises ZMQError where nobody is there any more.
Write = Callable[[list[Frame | zmq.Frame]], None]


class InboundConnection:
    """One connection from which something came, known by its descriptor, which belongs to libzmq.

    `forget` tells its door that it is gone.
    """

    def __init__(
        self, peers: InboundConnections, write: Write, forget: Callable[[], object], descriptor: int, address: str
    ) -> None:
        self.address = address
        self._peers = peers
        self._write = write
        self._forget = forget
        self._descriptor = descriptor
        self.inode = inode_of(descriptor)  # the number may be another connection's soon
        self.messages = 0  # that came from it
        self._backlog = Backlog()
        self._has_left = False

    @property
    def waiting_nbytes(self) -> int:
        """What was sent and has not left."""
        return self._backlog.nbytes

    @property
    def is_behind(self) -> bool:
        return self.waiting_nbytes > BEHIND_FROM_NBYTES

    def is_there(self) -> bool:
        return not self._has_left and inode_of(self._descriptor) == self.inode != 0

    def send(self, frames: list[Frame]) -> None:
        """Sends without waiting. One that is gone is parted with, and so is one for whom too much waits."""
        if self._has_left:
            return
        if self.is_behind:
            if not self._peers.may_send(self):
                return
            frames = [bytes(each) for each in frames]
        try:
            self._write(self._backlog.enter(frames))
        except zmq.ZMQError:
            self._peers.part(self)

    def leave(self) -> None:
        """Nothing is sent any more."""
        self._has_left = True
        self._forget()

    def cut(self) -> None:
        """Ends the connection."""
        shut_down(self._descriptor, self.inode)


class InboundConnections:
    """All of one gateway. `left(peer)` is told of each that is gone, `turned_out(peer, why)` before of each that has to
    go. One loop.
    """

    def __init__(
        self, left: Callable[[InboundConnection], None], turned_out: Callable[[InboundConnection, str], None]
    ) -> None:
        self._left = left
        self._turned_out = turned_out
        self._all: set[InboundConnection] = set()

    def enter(
        self, write: Write, forget: Callable[[], object], descriptor: int, address: str
    ) -> InboundConnection | None:
        """A new one; None where it has gone already."""
        peer = InboundConnection(self, write, forget, descriptor, address)
        if not peer.is_there():
            return None
        self._all.add(peer)
        return peer

    def messages(self) -> dict[int, int]:
        """How many have come from each, by the inode of its connection."""
        return {each.inode: each.messages for each in self._all}

    def may_send(self, peer: InboundConnection) -> bool:
        """Whether more may wait for a peer. If not, it is turned out."""
        if peer.waiting_nbytes > MOST_WAITING_NBYTES:
            self._turn_out(peer, f"{peer.waiting_nbytes} bytes wait for it, and {MOST_WAITING_NBYTES} may")
        elif (waiting := sum(each.waiting_nbytes for each in self._all)) > MOST_WAITING_OF_ALL_NBYTES:
            fullest = max(self._all, key=lambda each: each.waiting_nbytes)
            most = f"of all {waiting} that wait, and {MOST_WAITING_OF_ALL_NBYTES} may"
            self._turn_out(fullest, f"{fullest.waiting_nbytes} bytes wait for it, the most {most}")
        return peer in self._all

    def _turn_out(self, peer: InboundConnection, why: str) -> None:
        self._turned_out(peer, why)
        peer.cut()
        self.part(peer)

    def part(self, peer: InboundConnection) -> None:
        """It is gone."""
        if peer in self._all:
            self._all.discard(peer)
            peer.leave()
            self._left(peer)

    def look(self) -> None:
        """Parts with those whose connections have ended."""
        for peer in [each for each in self._all if not each.is_there()]:
            self.part(peer)

    async def watch(self) -> None:
        """For ever."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            self.look()
