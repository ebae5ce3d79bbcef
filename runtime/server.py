"""The ZeroMQ side of the supervisor: workers report and are told, the CLI and clients ask."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import msgpack
import zmq

from .errors import ProtocolError, SlabwireError

logger = logging.getLogger("slabwire")

VERSION = 1
# Of one control message; a graph's spec with pickled closures is by far the largest.
LARGEST_NBYTES = 64 << 20
_LAST_ANSWERS_S = 0.5


class ControlServer:
    """One ROUTER socket. Workers name themselves `w:<name>`; whoever else sends gets one answer to each message.

    `serve(request)` answers, `report(worker, message)` takes a worker's word.
    """

    def __init__(
        self,
        address: str,
        serve: Callable[[dict[str, Any]], Awaitable[dict[str, Any]]],
        report: Callable[[str, dict[str, Any]], None],
    ) -> None:
        self._serve = serve
        self._report = report
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.ROUTER)
        self._socket.setsockopt(zmq.LINGER, 500)
        self._socket.setsockopt(zmq.MAXMSGSIZE, LARGEST_NBYTES)
        # A successor registers under its predecessor's name.
        self._socket.setsockopt(zmq.ROUTER_HANDOVER, 1)
        self._socket.bind(address)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        loop.add_reader(int(self._socket.get(zmq.FD)), self._drain)
        self._drain()

    def tell(self, worker: str, message: dict[str, Any]) -> None:
        """Sends a worker an order; one that is gone will be told by its successor's start."""
        self._send(f"w:{worker}".encode(), message)

    def _send(self, identity: bytes, message: dict[str, Any]) -> None:
        try:
            self._socket.send_multipart([identity, msgpack.packb(message)], zmq.DONTWAIT)
        except zmq.ZMQError as error:
            logger.debug("a control message was not sent: %s", error)
        if self._loop is not None:
            # The descriptor tells only of changes: what came while we sent would go unnoticed.
            self._loop.call_soon(self._drain)

    def _drain(self) -> None:
        while not self._socket.closed and int(self._socket.get(zmq.EVENTS)) & zmq.POLLIN:
            identity, *frames = self._socket.recv_multipart()
            self._take(identity, frames)

    def _take(self, identity: bytes, frames: list[bytes]) -> None:
        try:
            message = msgpack.unpackb(frames[-1]) if frames else None
            if not isinstance(message, dict) or "verb" not in message:
                raise ProtocolError("a control message is a dict with a verb")
        except (ValueError, SlabwireError) as error:
            self._send(identity, {"ok": False, "code": ProtocolError.code, "error": str(error)})
            return
        if identity.startswith(b"w:"):
            self._report(identity[2:].decode(errors="replace"), message)
        elif self._loop is not None:
            task = self._loop.create_task(self._answer(identity, message))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _answer(self, identity: bytes, request: dict[str, Any]) -> None:
        try:
            answer = {"ok": True, "version": VERSION, "result": await self._serve(request)}
        except SlabwireError as error:
            answer = {"ok": False, "code": error.code, "error": str(error)}
        except Exception as error:
            logger.exception("a control request failed")
            answer = {"ok": False, "code": "internal", "error": f"{type(error).__name__}: {error}"}
        self._send(identity, {"token": request.get("token"), **answer})

    async def answered(self) -> None:
        """Waits until what was asked was answered, which takes no time once the graph has ended."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_LAST_ANSWERS_S)

    def close(self) -> None:
        if self._loop is not None:
            self._loop.remove_reader(int(self._socket.get(zmq.FD)))
            self._loop = None
        self._socket.close()
        self._context.term()
