"""One remote client as the gateway sees it: its calls in flight, its streams, its end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any, NamedTuple

from ..clients.async_connection import AsyncLocalConnection
from ..clients.retry import key_of, sends_once
from ..dataplane.pending import deadline_of
from ..errors import MessageError, Overloaded, ProtocolError, SlabwireError, mark_not_begun
from ..remote.frame_codec import pack_value, unpack_value
from ..remote.protocol import LARGEST_MESSAGE_NBYTES, Frame, FrameKind, Head, pack_head, trace_of
from ..spec import FieldSpec
from .budget import Budget
from .error_frames import error_frames
from .idempotent_calls import IdempotentCalls
from .inbound_connections import InboundConnection
from .remote_sources import SENDS, RemoteSources
from .remote_streams import RemoteStreams

logger = logging.getLogger("slabwire")

# Calls and streams together.
MOST_CALLS = 1024
# Of one client's: as much as one message may have.
MOST_REQUESTS_OF_ONE_NBYTES = LARGEST_MESSAGE_NBYTES
# What a call takes here beside its bytes: a task, its fields, its answer's place.
CALL_NBYTES = 4096


class Shared(NamedTuple):
    """What all clients of a gateway have in common: a connection for their calls and one for their streams, so that no
    call waits behind a stream for which its actor has no place, and what they may take of memory.
    """

    calls: AsyncLocalConnection
    streams: AsyncLocalConnection
    keyed: IdempotentCalls
    requests: Budget
    held: Budget


class RemotePeer:
    """Takes one client's messages and answers them. `takes_items`: it takes messages of many items. `who`: the public
    key that it came with, where that is asked for. One loop.
    """

    def __init__(self, peer: InboundConnection, shared: Shared, who: str = "", *, takes_items: bool = False) -> None:
        self._peer = peer
        self._graph = shared.calls
        self._keyed = shared.keyed
        self._who = who
        self._budget = Budget(MOST_REQUESTS_OF_ONE_NBYTES, whose=" of this client", within=shared.requests)
        self._sources = RemoteSources(peer, self._budget)
        self._streams = RemoteStreams(peer, shared.streams, shared.held, self._stream_ended, takes_items=takes_items)
        self._calls: dict[int, asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def receive(self, head: Head, frames: Sequence[Frame]) -> None:
        """One message after the hello. Raises ProtocolError for what no correct client sends."""
        if head.kind == FrameKind.CALL:
            self._begin(head, frames)
        elif head.kind in SENDS:
            self._take_sent(head, frames)
        elif head.kind == FrameKind.CREDIT and head.id in self._streams:
            self._streams.grant(head.id, head.credit)
        elif head.kind == FrameKind.CANCEL and head.id in self._streams:
            self._streams.cancel(head.id)
        elif head.kind == FrameKind.CANCEL and head.id in self._calls:
            self._calls.pop(head.id).cancel()  # its place and its id are free from now on
            self._sources.close(head.id)

    def _take_sent(self, head: Head, frames: Sequence[Frame]) -> None:
        """Something of a stream that a call sends. What comes for a call that has ended was on its way."""
        if not self._sources.put(head, frames) and (head.id in self._calls or head.id in self._streams):
            raise ProtocolError(f"the call {head.id} sends no stream, and something of one came for it")

    def _begin(self, head: Head, frames: Sequence[Frame]) -> None:
        if not head.id or head.id in self._calls or head.id in self._streams:
            raise ProtocolError(f"the call id {head.id} is in use, or 0")
        nbytes = CALL_NBYTES + sum(map(len, frames))
        try:
            if len(self._calls) + len(self._streams) >= MOST_CALLS:
                text = f"{MOST_CALLS} calls of this client are in flight; wait for some, or use a second client"
                raise mark_not_begun(Overloaded(text))
            key_of(head.key or None)
            routing = self._graph.local.routing
            route = routing.route(head.port, inside=False)
            sent = routing.entry(route).sent_stream
            _check_sends(head, sent)
            # A payload is read only where there is a port for it.
            fields = unpack_value(frames)
            if not isinstance(fields, dict):
                raise MessageError(
                    f"the payload of a call is a {type(fields).__name__}; it must be a map of fields by name"
                )
            if sent is not None and sent.name in fields:
                raise MessageError(f"{head.port}: '{sent.name}' is a stream, which comes behind the call, not in it")
            if not self._budget.has_room(nbytes):
                self.settle()
            self._budget.take(nbytes)
        except SlabwireError as error:
            self._fail(head.id, error)
            return
        if sent is not None:
            fields[sent.name] = self._sources.open(head.id)
        deadline_ns = deadline_of(head.timeout_s)
        if head.stream and self._graph.local.routing.streams(route):
            self._begin_stream(head, fields, deadline_ns, nbytes)
        else:
            self._begin_call(head, fields, deadline_ns, frames, nbytes)

    def _begin_stream(self, head: Head, fields: dict[str, Any], deadline_ns: int, nbytes: int) -> None:
        try:
            self._streams.begin(head, fields, deadline_ns, nbytes)
        except SlabwireError as error:
            self._stream_ended(head.id, nbytes)
            self._fail(head.id, error)

    def _stream_ended(self, number: int, nbytes: int) -> None:
        self._budget.give_back(nbytes)
        self._sources.close(number)

    def _begin_call(
        self, head: Head, fields: dict[str, Any], deadline_ns: int, frames: Sequence[Frame], nbytes: int
    ) -> None:
        payload = frames if head.key else ()
        task = asyncio.get_running_loop().create_task(self._run(head, fields, deadline_ns, payload))
        self._calls[head.id] = task
        self._tasks.add(task)
        task.add_done_callback(lambda ended: self._ended(head.id, ended, nbytes))

    def _ended(self, number: int, task: asyncio.Task[None], nbytes: int) -> None:
        self._tasks.discard(task)
        self._budget.give_back(nbytes)
        self._free(number, task)

    def _free(self, number: int, task: asyncio.Task[None] | None) -> None:
        """The id of a call is free from now on, unless it has been, and is another call's."""
        if self._calls.get(number) is task:
            del self._calls[number]
            self._sources.close(number)

    async def _run(self, head: Head, fields: dict[str, Any], deadline_ns: int, payload: Sequence[Frame]) -> None:
        frames: list[Frame]
        try:
            if head.key and not head.stream:
                frames = [*await self._answer_once(head, fields, deadline_ns, payload)]
            else:
                frames = pack_value(await _answer_of(self._graph, head, fields, deadline_ns))
            frames = [pack_head(Head(FrameKind.REPLY, head.id)), *frames]
        except SlabwireError as error:
            frames = error_frames(error, head.id)
        except Exception as error:  # a fault of ours; the client must not wait for ever
            logger.exception("a call of a remote client failed")
            frames = error_frames(SlabwireError(f"the gateway failed: {type(error).__name__}"), head.id)
        self._free(head.id, asyncio.current_task())  # before the client hears of it
        self._peer.send(frames)

    async def _answer_once(
        self, head: Head, fields: dict[str, Any], deadline_ns: int, payload: Sequence[Frame]
    ) -> list[bytes]:
        graph = self._graph  # not this peer, which may be gone by then

        async def ask() -> list[Frame]:
            return pack_value(await _answer_of(graph, head, fields, deadline_ns))

        return await self._keyed.answer((self._who, head.port, head.key), payload, ask)

    def _fail(self, number: int, error: SlabwireError) -> None:
        self._peer.send(error_frames(error, number))

    def settle(self) -> None:
        """From time to time: gives back what items took that this client has sent, and that were read."""
        self._sources.settle()

    def leave(self, error: SlabwireError | None = None) -> asyncio.Future[list[Any]]:
        """All its calls are cancelled: the client is gone, or is told this error of each. Done when they have ended."""
        self._streams.close(error)
        if error is not None:
            for number in self._calls:
                self._fail(number, error)
        for task in self._tasks:
            task.cancel()
        return asyncio.gather(*self._tasks, return_exceptions=True)


def _check_sends(head: Head, sent: FieldSpec | None) -> None:
    """Raises MessageError where a call sends a stream to a port that takes none, or none to one that takes one."""
    if sent is not None and not head.sends:
        raise MessageError(
            f"{head.port} takes a stream in '{sent.name}', and this client sends none; let it say `sends` in the call, "
            "as docs/wire.md describes, or update slabwire there"
        )
    if head.sends and sent is None:
        raise MessageError(f"{head.port} takes no stream, and the call says that it sends one")
    if head.sends:
        sends_once(head.key, head.port)


async def _answer_of(graph: AsyncLocalConnection, head: Head, fields: dict[str, Any], deadline_ns: int) -> Any:
    return await graph.calls.call(head.port, (), fields, deadline_ns, trace_of(head.traceparent), head.key)
