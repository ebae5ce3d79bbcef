"""The lanes along the edges of one actor instance, and which of them a message takes where replicas wait behind."""

from __future__ import annotations

import contextlib
from typing import Any

from ...shm.producer import Producer
from ..errors import CorruptLane, MessageError
from ..graph.compiled import Routing
from ..graph.replicas import HASH, Choice, HashChoice, policy_of
from ..message.header import Flag, Header, Kind, read_header
from .work import Dispatch

ANY = -1  # the replica that is best when the message leaves
# Streams whose replica is remembered. The replica of a forgotten stream is found by its next key, or in the ring.
_MOST_STREAMS = 1024


class ReplicaLanes:
    """`lanes` holds an edge's lanes in the order of the replicas behind it. One thread."""

    def __init__(self, routing: Routing) -> None:
        self.lanes: dict[int, list[Producer]] = {}
        self._choices: dict[int, Choice] = {}
        self._keys: dict[int, HashChoice] = {}
        self._routing = routing
        self._streams: dict[tuple[int, tuple[int, int]], int] = {}  # by edge and request: where the open ones go
        for number, edge in enumerate(routing.spec.edges):
            actor = routing.spec.actor(edge.target.actor)
            if actor.replicas == 1:
                continue
            policy = policy_of(actor.routing)
            if policy.kind == HASH:
                handler = actor.handler(edge.target.port)
                self._keys[number] = HashChoice(actor.name, handler, policy.field, actor.replicas)
            self._choices[number] = Choice(policy)

    def bind(self, edge: int, kind: Kind, value: Any, header: Header, *, item: bool) -> int:
        """The replica that a message must go to, or ANY.

        On the way to a caller the items of one stream stay together, or its end would overtake some. Raises
        MessageError for an item whose key belongs to another replica than the first, and for a value that is no key.
        """
        keys = self._keys.get(edge)
        if keys is None:
            return ANY
        if kind == Kind.END:
            return self._bound_end(edge, header)
        chosen = keys.of_value(value)
        if item and self._is_awaited(edge, header) and self._bound(edge, header, chosen) != chosen:
            raise MessageError(
                f"{keys.what} of an item belongs to another replica than that of the first item, but a stream on its "
                "way to a caller stays together; call for each item, or send them by edges that lead to no answer"
            )
        return chosen

    def _is_awaited(self, edge: int, header: Header) -> bool:
        target = self._routing.spec.edges[edge].target
        return header.reply_to != 0 and self._routing.leads_to_reply(header.route, target)

    def _bound(self, edge: int, header: Header, chosen: int) -> int:
        bound = self._streams.setdefault((edge, header.key), chosen)
        if len(self._streams) > _MOST_STREAMS:
            del self._streams[next(iter(self._streams))]
        return bound

    def _bound_end(self, edge: int, header: Header) -> int:
        """The replica that the items of a stream went to, or ANY. The stream's end goes there, behind the items."""
        known = self._streams.pop((edge, header.key), None)
        return known if known is not None else self._went_to(edge, header)

    def _went_to(self, edge: int, header: Header) -> int:
        """Where a predecessor sent the items of a stream: its records stand in the ring until others need the place."""
        for replica, producer in enumerate(self.lanes[edge]):
            with contextlib.suppress(CorruptLane):
                for sequence in range(max(0, producer.head - producer.capacity + 1), producer.head):
                    sent = read_header(producer.record(sequence), 0)
                    if sent.key == header.key and sent.flags & Flag.ITEM:
                        return replica
        return ANY

    def lane_for(self, dispatch: Dispatch, header: Header) -> Producer:
        """The lane that a message takes now, or would take if there were room."""
        lanes = self.lanes[dispatch.edge]
        if len(lanes) == 1:
            return lanes[0]
        if dispatch.replica != ANY:
            return lanes[dispatch.replica]
        if dispatch.flags & Flag.ITEM:
            return lanes[header.request % len(lanes)]
        return self._choices[dispatch.edge].pick(lanes, dispatch.payload.can_go)

    def went(self, dispatch: Dispatch, lane: Producer) -> None:
        """A message has left by a lane of its edge."""
        choice = self._choices.get(dispatch.edge)
        if choice is not None:
            choice.went(self.lanes[dispatch.edge], lane)
