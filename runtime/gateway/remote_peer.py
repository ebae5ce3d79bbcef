"""One remote client as the gateway sees it: its calls in flight, the credit of its streams, its end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

from ...shm.bell import now_ns
from ..clients.async_connection import AsyncLocalConnection
from ..clients.retry import key_of
from ..dataplane.async_calls import until
from ..dataplane.caller import deadline_of, timed_out
from ..errors import MessageError, Overloaded, ProtocolError, SlabwireError, mark_not_begun
from ..message.header import Kind as RecordKind
from ..message.payload import wire_form
from ..remote.exposed_ports import sent_on_the_host
from ..remote.frame_codec import pack_value, unpack_value
from ..remote.protocol import LARGEST_MESSAGE_NBYTES, MOST_CREDIT, Frame, FrameKind, Head, pack_head, trace_of
from .budget import Budget
from .idempotent_calls import IdempotentCalls
from .inbound_connections import InboundConnection
from .stream_connection import StreamConnections

logger = logging.getLogger("slabwire")

# Calls and streams together.
MOST_CALLS = 64
# Of one client's: as much as one message may have.
MOST_REQUESTS_OF_ONE_NBYTES = LARGEST_MESSAGE_NBYTES
# A stream whose client is behind looks so often whether it has caught up: nobody tells.
_LOOK_EVERY_S = 0.02


class Credit:
    """How many more items of a stream its client has room for."""

    def __init__(self, items: int) -> None:
        self.items = items
        self._granted = asyncio.Event()

    def grant(self, items: int) -> None:
        """Raises ProtocolError for more than a client may have."""
        if self.items + items > MOST_CREDIT:
            raise ProtocolError(f"a stream was granted {self.items + items} items; at most {MOST_CREDIT} may be out")
        self.items += items
        self._granted.set()

    async def take(self, deadline_ns: int, target: str) -> None:
        """Waits for room for one item. Raises DeadlineExceeded."""
        while not self.items:
            self._granted.clear()
            try:
                async with until(deadline_ns):
                    await self._granted.wait()
            except TimeoutError:
                raise timed_out(target) from None
        self.items -= 1


class RemotePeer:
    """Takes one client's messages and answers them. One loop."""

    def __init__(
        self,
        peer: InboundConnection,
        graph: AsyncLocalConnection,
        streams: StreamConnections,
        budget: Budget,
        keyed: IdempotentCalls,
        who: str = "",
    ) -> None:
        self._peer = peer
        self._keyed = keyed
        self._who = who  # the public key that it came with, where that is asked for
        self._graph = graph
        self._streams = streams
        self._budget = Budget(MOST_REQUESTS_OF_ONE_NBYTES, whose=" of this client", within=budget)
        self._calls: dict[int, tuple[asyncio.Task[None], Credit]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def receive(self, head: Head, frames: Sequence[Frame]) -> None:
        """One message after the hello. Raises ProtocolError for what no correct client sends."""
        if head.kind == FrameKind.CALL:
            self._begin(head, frames)
        elif head.kind == FrameKind.CANCEL and head.id in self._calls:
            task, _ = self._calls.pop(head.id)  # its place and its id are free from now on
            task.cancel()
        elif head.kind == FrameKind.CREDIT and head.id in self._calls:
            self._calls[head.id][1].grant(head.credit)

    def _begin(self, head: Head, frames: Sequence[Frame]) -> None:
        if not head.id or head.id in self._calls:
            raise ProtocolError(f"the call id {head.id} is in use, or 0")
        nbytes = sum(map(len, frames))
        try:
            if len(self._calls) >= MOST_CALLS:
                text = f"{MOST_CALLS} calls of this client are in flight; wait for some, or use a second client"
                raise mark_not_begun(Overloaded(text))
            key_of(head.key or None)
            routing = self._graph.local.routing
            entry = routing.entry(routing.route(head.port, inside=False))
            if entry.sent_stream is not None:
                raise sent_on_the_host(head.port, entry.sent_stream.name)
            # A payload is read only where there is a port for it.
            fields = unpack_value(frames)
            if not isinstance(fields, dict):
                raise MessageError(
                    f"the payload of a call is a {type(fields).__name__}; it must be a map of fields by name"
                )
            self._budget.take(nbytes)
        except SlabwireError as error:
            self._fail(head.id, error)
            return
        credit = Credit(head.credit)
        deadline_ns = deadline_of(head.timeout_s)
        payload = frames if head.key else ()
        task = asyncio.get_running_loop().create_task(self._run(head, fields, credit, deadline_ns, payload))
        self._calls[head.id] = task, credit
        self._tasks.add(task)
        task.add_done_callback(lambda ended: self._ended(head.id, ended, nbytes))

    def _ended(self, number: int, task: asyncio.Task[None], nbytes: int) -> None:
        self._tasks.discard(task)
        self._budget.give_back(nbytes)
        if number in self._calls and self._calls[number][0] is task:
            del self._calls[number]

    async def _run(
        self, head: Head, fields: dict[str, Any], credit: Credit, deadline_ns: int, payload: Sequence[Frame]
    ) -> None:
        try:
            if head.stream:
                await self._stream(head, fields, credit, deadline_ns)
            elif head.key:
                await self._answer_once(head, fields, deadline_ns, payload)
            else:
                self._answer(head.id, FrameKind.REPLY, await _answer_of(self._graph, head, fields, deadline_ns))
        except SlabwireError as error:
            self._fail(head.id, error)
        except Exception as error:  # a fault of ours; the client must not wait for ever
            logger.exception("a call of a remote client failed")
            self._fail(head.id, SlabwireError(f"the gateway failed: {type(error).__name__}"))

    async def _answer_once(
        self, head: Head, fields: dict[str, Any], deadline_ns: int, payload: Sequence[Frame]
    ) -> None:
        graph = self._graph  # not this peer, which may be gone by then

        async def ask() -> list[Frame]:
            return pack_value(await _answer_of(graph, head, fields, deadline_ns))

        frames = await self._keyed.answer((self._who, head.port, head.key), payload, ask)
        self._peer.send([pack_head(Head(FrameKind.REPLY, head.id)), *frames])

    async def _stream(self, head: Head, fields: dict[str, Any], credit: Credit, deadline_ns: int) -> None:
        connection = await self._streams.take()
        answers = connection.answers(head.port, fields, deadline_ns, trace_of(head.traceparent), head.key)
        try:
            async for kind, value in answers:
                if kind == RecordKind.ITEM:
                    await credit.take(deadline_ns, head.port)
                    await self._catch_up(deadline_ns, head.port)
                self._answer(head.id, _KINDS[kind], value)
        finally:
            await answers.aclose()  # type: ignore[attr-defined]
            self._streams.give_back(connection)

    async def _catch_up(self, deadline_ns: int, target: str) -> None:
        """Waits until the client is not behind any more. Raises DeadlineExceeded."""
        while self._peer.is_behind:
            if deadline_ns and now_ns() > deadline_ns:
                raise timed_out(target)
            await asyncio.sleep(_LOOK_EVERY_S)

    def _answer(self, number: int, kind: FrameKind, value: Any) -> None:
        self._peer.send([pack_head(Head(kind, number)), *pack_value(value)])

    def _fail(self, number: int, error: SlabwireError) -> None:
        self._peer.send(error_frames(error, number))

    async def leave(self, error: SlabwireError | None = None) -> None:
        """All its calls are cancelled: the client is gone, or is told this error of each."""
        if error is not None:
            for number in self._calls:
                self._fail(number, error)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def _answer_of(graph: AsyncLocalConnection, head: Head, fields: dict[str, Any], deadline_ns: int) -> Any:
    return await graph.calls.call(head.port, (), fields, deadline_ns, trace_of(head.traceparent), head.key)


_KINDS = {RecordKind.ITEM: FrameKind.ITEM, RecordKind.END: FrameKind.END, RecordKind.REPLY: FrameKind.REPLY}


def error_frames(error: SlabwireError, number: int = 0) -> list[Frame]:
    """The message that tells a client of an error: of one call, or (0) of its whole conversation."""
    code, text = wire_form(error)
    head = Head(FrameKind.ERROR, number, code=code, not_begun=error.not_begun)
    return [pack_head(head), *pack_value(text)]
