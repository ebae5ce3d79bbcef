"""Callers that have gone: what they still waited for is cancelled, what their answered calls have set going is not.

A client's memory is kept until nothing on the way needs it: requests that are not given back, inputs in flight, and
blocks that others have been lent or have passed on. Arrays that an actor keeps for itself are its own mapping's affair:
once the graph has nothing to do, nobody can need them from here.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Collection, Iterator
from typing import Protocol

from ...shm.inflight import lanes_kept
from ...shm.open_calls import calls_left
from ..control.channel import Cancelled, Left, News
from ..message.capacities import EVERY_REQUEST, MOST_REMEMBERED, Key
from .peers import LaneRecord, Peer

logger = logging.getLogger("slabwire")

# Clients that have gone and whose memory is still needed. Each has some descriptors; of more the oldest is given up.
MOST_LEAVING = 64
# Cancelled requests that one message names: a quarter of what may go over a descriptor channel at once.
_TOLD_AT_ONCE = 2048


class Board(Protocol):
    """The switchboard, as departures need it."""

    lanes: dict[int, LaneRecord]

    def is_idle(self, gone: Collection[str]) -> bool: ...

    def tell_workers(self, news: News) -> None: ...

    def remove_lanes(self, lanes: list[LaneRecord]) -> None: ...

    def remove_peer(self, peer: Peer, lanes: list[LaneRecord]) -> None: ...


class Departures:
    """Of one switchboard. One thread."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self._leaving: dict[int, Peer] = {}
        # The requests that ended last with their callers. Successors of workers that hear nothing now are told.
        self.cancelled: deque[Key] = deque(maxlen=MOST_REMEMBERED)

    def caller_died(self, peer: Peer) -> None:
        """Ends everywhere what a process that is gone was not answered yet. Before it has a successor."""
        self._cancel([(peer.number, request) for request in calls_left(peer.bell)])

    def _cancel(self, keys: list[Key]) -> None:
        self.cancelled += keys
        for news in _cancelled_news(keys):
            self._board.tell_workers(news)

    def tell_cancelled(self, worker: Peer) -> None:
        """What its predecessor may have missed."""
        for news in _cancelled_news(list(self.cancelled)):
            worker.tell(news)

    def client_left(self, peer: Peer) -> None:
        """A client has closed, or died."""
        self.caller_died(peer)
        replies = [each for each in self._board.lanes.values() if each.consumer is peer]
        self._board.remove_lanes(replies)
        self._board.tell_workers(Left(peer.number, [each.number for each in replies]))
        self._leaving[peer.number] = peer
        self.see_off()

    def turned_out(self, peer: Peer) -> None:
        """A client writes what no client writes: nothing that it asked for is wanted, nor what it may yet write."""
        self._cancel([(peer.number, EVERY_REQUEST)])
        self._remove(peer)

    def see_off(self, gone: Collection[str] = ()) -> None:
        """Removes the clients of which nothing is needed any more. Workers that are `gone` for good need nothing."""
        idle: bool | None = None
        for peer in list(self._leaving.values()):
            lanes = [each for each in self._lanes_of(peer) if each.consumer.name not in gone]
            if any(map(_is_unfinished, lanes)):
                continue
            if any(any(each.lent()) for each in lanes):
                # By a message on its way, or by an actor that keeps an array: that one has mapped it.
                idle = self._board.is_idle(gone) if idle is None else idle
                if not idle:
                    continue
            self._remove(peer)
        if len(self._leaving) > MOST_LEAVING:
            oldest = next(iter(self._leaving.values()))
            logger.warning("%s is gone, and its memory is given up though calls of it are still worked on", oldest.name)
            self._remove(oldest)

    def close(self) -> None:
        """The graph has ended: of clients that are still leaving nothing is needed any more."""
        self._leaving.clear()

    def _lanes_of(self, peer: Peer) -> list[LaneRecord]:
        return [each for each in self._board.lanes.values() if peer in (each.producer, each.consumer)]

    def _remove(self, peer: Peer) -> None:
        self._leaving.pop(peer.number, None)
        self._board.remove_peer(peer, self._lanes_of(peer))


def _cancelled_news(keys: list[Key]) -> Iterator[Cancelled]:
    """In as many messages as they need."""
    return (Cancelled(keys[at : at + _TOLD_AT_ONCE]) for at in range(0, len(keys), _TOLD_AT_ONCE))


def _is_unfinished(lane: LaneRecord) -> bool:
    """Whether a request that came by a lane is not finished. It first lies in the lane, then in its row: so looked for
    in this order it is not missed.
    """
    return bool(lane.waiting() or lane.number in lanes_kept(lane.consumer.tables[lane.target]))
