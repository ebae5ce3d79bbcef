"""Whether a gateway answers: asked again and again as clients ask, over a new connection to each of its addresses."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

import zmq

from ..errors import ProtocolError
from ..host.heartbeat import LOOK_EVERY_S, Heartbeat
from .curve_keys import Pair
from .frame_codec import pack_value
from .protocol import FrameKind, Head, pack_head, unpack_head
from .zmq_events import can_read, descriptor_of

logger = logging.getLogger("slabwire")

# Between an answer and the next question. A question costs both sides together half a millisecond of CPU time.
ASK_EVERY_S = 2.0
# The question is sent again: the gateway's end of the connection may have broken before it had answered.
_AGAIN_S = 2.0
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}


class Knocker:
    """On one loop. Where CURVE is spoken it has a `pair` of its own, whose public key the gateway lets in."""

    def __init__(self, pair: Pair | None) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._pair = pair
        self._knocking: set[asyncio.Task[None]] = set()

    def knock(self, address: str, server_key: str) -> asyncio.Task[None]:
        """A task that ends when the gateway has answered. It speaks CURVE where `server_key` is not empty.

        The task's exception is a ZMQError where there is no descriptor to ask with.
        """
        task = asyncio.get_running_loop().create_task(self._knock(address, server_key))
        self._knocking.add(task)
        task.add_done_callback(self._knocking.discard)
        return task

    async def _knock(self, address: str, server_key: str) -> None:
        async with self._connected(address, server_key) as socket:
            ping = [pack_head(Head(FrameKind.PING)), *pack_value(None)]
            came = asyncio.Event()
            loop, descriptor = asyncio.get_running_loop(), descriptor_of(socket)
            loop.add_reader(descriptor, came.set)
            try:
                while not _is_answered(socket):
                    with contextlib.suppress(zmq.Again):
                        socket.send_multipart(ping, zmq.DONTWAIT)
                    await _wait_readable(socket, came)
            finally:
                loop.remove_reader(descriptor)

    @contextlib.asynccontextmanager
    async def _connected(self, address: str, server_key: str) -> AsyncIterator[zmq.Socket[bytes]]:
        socket = self._context.socket(zmq.DEALER)
        try:
            socket.setsockopt(zmq.LINGER, 0)
            socket.setsockopt(zmq.IPV6, "[" in address)
            if self._pair is not None and server_key:
                socket.curve_publickey, socket.curve_secretkey = self._pair
                socket.curve_serverkey = server_key.encode()
            socket.connect(reachable(address))
            yield socket
        finally:
            socket.close(0)

    async def close(self) -> None:
        for each in self._knocking:
            each.cancel()
        if self._knocking:
            await asyncio.wait(self._knocking)
        self._context.term()


class Watch:
    """Asks a gateway at each of its addresses, on the running loop, from now on. `addresses` has the gateway's key at
    each address, "" where it has none.
    """

    def __init__(self, knocker: Knocker, addresses: Mapping[str, str]) -> None:
        self._knocker = knocker
        self._server_keys = addresses
        self._pulses = {each: Heartbeat(time.monotonic()) for each in addresses}
        self._tasks = [asyncio.get_running_loop().create_task(self._ask_on(each)) for each in addresses]

    def silence(self) -> tuple[float, str]:
        """For how many seconds the gateway has not answered, and where: the address where that is longest."""
        return max((pulse.silent_s, address) for address, pulse in self._pulses.items())

    async def _ask_on(self, address: str) -> None:
        while True:
            await self._ask(address)
            await asyncio.sleep(ASK_EVERY_S)

    async def _ask(self, address: str) -> None:
        pulse = self._pulses[address]
        asking = self._knocker.knock(address, self._server_keys[address])
        try:
            while not asking.done():
                await asyncio.wait([asking], timeout=LOOK_EVERY_S)
                pulse.look(time.monotonic(), heard=asking.done())
            asking.result()
        except zmq.ZMQError as error:  # we have no descriptor to ask with, which says nothing of the gateway
            logger.warning("the gateway cannot be asked at %s: %s", address, error.strerror)
        finally:
            asking.cancel()

    def end(self) -> None:
        """Stops to ask."""
        for each in self._tasks:
            each.cancel()


async def _wait_readable(socket: zmq.Socket[Any], came: asyncio.Event) -> None:
    """Waits until something has come, or it is time to ask again."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_AGAIN_S):
            while not can_read(socket):
                await came.wait()
                came.clear()


def _is_answered(socket: zmq.Socket[bytes]) -> bool:
    while can_read(socket):
        with contextlib.suppress(ProtocolError):
            if unpack_head(socket.recv_multipart(zmq.DONTWAIT)).kind == FrameKind.PONG:
                return True
    return False


def reachable(address: str) -> str:
    """Where to connect to reach who listens at `address`, which may stand for all interfaces."""
    scheme, _, rest = address.partition("://")
    host, colon, port = rest.rpartition(":")
    return f"{scheme}://{_EVERYWHERE.get(host, host)}{colon}{port}" if scheme == "tcp" else address
