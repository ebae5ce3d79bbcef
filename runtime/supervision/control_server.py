"""The ZeroMQ side of the supervisor: workers report and are told, the CLI and clients ask."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable
from typing import Any

import zmq

from ..control.verbs import VERBS, Verb
from ..control.worker_line import ORDERS, REPORTS, Order, Report
from ..error_text import described, text_of
from ..errors import Overloaded, ProtocolError, SlabwireError
from ..host.sealed_document import pack_document, unpack_document
from ..remote.zmq_events import can_read, descriptor_of

logger = logging.getLogger("slabwire")

VERSION = 1
# Of one control message; a graph's spec with pickled closures is by far the largest.
LARGEST_NBYTES = 64 << 20
_LAST_ANSWERS_S = 0.5
# Messages that wait for one peer, in either direction: to one that does not read more is not sent.
_WAITING = 64
# Requests of one peer that are being answered.
_MOST_REQUESTS = 16
# Messages taken in before others get their turn on the loop.
_BATCH = 64


class ControlServer:
    """One ROUTER socket, served on the running loop.

    Workers name themselves `w:<name>`; whoever else sends gets one answer to each message.

    `serve(verb)` answers, `report(worker, pid, report)` takes a worker's word.
    """

    def __init__(
        self,
        address: str,
        serve: Callable[[Verb], Awaitable[dict[str, Any]]],
        report: Callable[[str, int, Report], None],
    ) -> None:
        self._serve = serve
        self._report = report
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.ROUTER)
        options = {
            zmq.LINGER: 500,
            zmq.MAXMSGSIZE: LARGEST_NBYTES,
            zmq.RCVHWM: _WAITING,
            zmq.SNDHWM: _WAITING,
            zmq.ROUTER_HANDOVER: 1,  # a successor registers under its predecessor's name
        }
        for option, value in options.items():
            self._socket.setsockopt(option, value)
        for uid in {os.geteuid(), 0}:  # no other user is heard, whoever may come to open the socket
            self._socket.setsockopt(zmq.IPC_FILTER_UID, uid)
        self._socket.bind(address)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(descriptor_of(self._socket), self._drain)
        self._loop.call_soon(self._drain)
        self._asked_by: dict[asyncio.Task[None], bytes] = {}  # who asked what is being answered

    def tell(self, worker: str, order: Order) -> None:
        """Sends a worker an order; one that is gone will be told by its successor's start."""
        self._send(f"w:{worker}".encode(), ORDERS.document(order))

    def _send(self, identity: bytes, message: dict[str, Any]) -> None:
        try:
            self._socket.send_multipart([identity, pack_document(message)], zmq.DONTWAIT)
        except zmq.ZMQError as error:
            logger.debug("a control message was not sent: %s", error)
        # The descriptor tells only of changes: what came while we sent would go unnoticed.
        self._loop.call_soon(self._drain)

    def _drain(self) -> None:
        for _ in range(_BATCH):
            if self._socket.closed or not can_read(self._socket):
                return
            identity, *frames = self._socket.recv_multipart()
            self._take(identity, frames)
        self._loop.call_soon(self._drain)

    def _take(self, identity: bytes, frames: list[bytes]) -> None:
        is_worker = identity.startswith(b"w:")
        try:
            message = unpack_document(frames[-1]) if frames else None
            if not isinstance(message, dict) or not (is_worker or "verb" in message):
                raise ProtocolError("a control message is a dict with a verb")
            if not isinstance(message.get("token", 0), int | str):  # another value might be too deep to be packed
                raise ProtocolError("the token of a control message is a number or a text")
        except (ValueError, SlabwireError) as error:
            self._refuse(identity, ProtocolError(str(error)))
            return
        if is_worker:
            self._take_report(identity[2:].decode(errors="replace"), message)
        elif list(self._asked_by.values()).count(identity) >= _MOST_REQUESTS:
            text = f"{_MOST_REQUESTS} requests of this client are being answered; wait for some"
            self._refuse(identity, Overloaded(text), message.get("token"))
        else:
            task = self._loop.create_task(self._answer(identity, message))
            self._asked_by[task] = identity
            task.add_done_callback(self._asked_by.pop)

    def _take_report(self, worker: str, message: dict[str, Any]) -> None:
        try:
            report = REPORTS.read(message)
        except ProtocolError as error:  # of a worker that was replaced by another version, or of somebody who lies
            logger.error("a report of %s is not understood: %s", worker, error)
        else:
            self._report(worker, message.get("pid", 0), report)

    def _refuse(self, identity: bytes, error: SlabwireError, token: Any = None) -> None:
        self._send(identity, {"token": token, "ok": False, "code": error.code, "error": str(error)})

    async def _answer(self, identity: bytes, request: dict[str, Any]) -> None:
        try:
            answer = {"ok": True, "version": VERSION, "result": await self._serve(VERBS.read(request))}
        except SlabwireError as error:
            answer = {"ok": False, "code": error.code, "error": text_of(error)}
        except Exception as error:
            logger.exception("a control request failed")
            answer = {"ok": False, "code": "internal", "error": described(error)}
        self._send(identity, {"token": request.get("token"), **answer})

    async def answered(self) -> None:
        """Waits until what was asked was answered, which takes no time once the graph has ended."""
        if self._asked_by:
            await asyncio.wait(self._asked_by, timeout=_LAST_ANSWERS_S)

    def close(self) -> None:
        self._loop.remove_reader(descriptor_of(self._socket))
        self._socket.close()
        self._context.term()
