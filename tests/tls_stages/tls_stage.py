"""A terminator of each engine behind a listener, protocols that note what happens to them, and clients."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from http_stage import listen
from slabwire.actors.ingress.certificates.certificate import Certificate
from slabwire.actors.ingress.tls.libssl import libssl
from slabwire.actors.ingress.tls.libssl_terminator import LibsslTerminator
from slabwire.actors.ingress.tls.outcome import Outcome
from slabwire.actors.ingress.tls.stdlib_terminator import StdlibTerminator
from slabwire.actors.ingress.tls.terminator import Minimum, Terminator

ENGINES = ("libssl", "stdlib")


def terminator_of(engine: str, certificate: Certificate, minimum: Minimum = "1.3") -> Terminator:
    if engine == "stdlib":
        return StdlibTerminator([certificate], minimum)
    return LibsslTerminator(libssl(), [certificate], minimum)


class Notes(asyncio.Protocol):
    """Notes what it is told, and does nothing."""

    transport: asyncio.Transport

    def __init__(self) -> None:
        self.events: list[str] = []
        self.data = bytearray()
        self.lost = asyncio.Event()
        self.error: Exception | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.events.append("made")

    def data_received(self, data: bytes) -> None:
        assert type(data) is bytes
        self.data += data

    def eof_received(self) -> None:
        self.events.append("eof")

    def pause_writing(self) -> None:
        self.events.append("pause")

    def resume_writing(self) -> None:
        self.events.append("resume")

    def connection_lost(self, exc: Exception | None) -> None:
        self.events.append("lost")
        self.error = exc
        self.lost.set()


class Shout(Notes):
    """Answers in capitals."""

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self.transport.write(data.upper())


class Door:
    """One listener, and what became of the connections that came in."""

    def __init__(self, terminator: Terminator, protocol_factory: Callable[[], Notes] = Shout) -> None:
        self.listener = listen("tcp://127.0.0.1:0")
        self.address: tuple[str, int] = self.listener.getsockname()
        self.terminator = terminator
        self.protocol_factory = protocol_factory
        self.protocols: list[Notes] = []
        self.outcome: Outcome = None  # of the latest handshake

    def protocol(self) -> Notes:
        self.protocols.append(self.protocol_factory())
        return self.protocols[-1]

    async def secure_next(self) -> Notes | None:
        """Raises what the handshake failed of; the newest protocol otherwise."""
        loop = asyncio.get_running_loop()
        connection, _ = await loop.sock_accept(self.listener)
        ended: asyncio.Future[Outcome] = loop.create_future()
        handshake = self.terminator.secure(connection, self.protocol, ended.set_result)
        try:
            self.outcome = await asyncio.shield(ended)
        except asyncio.CancelledError:
            handshake.cancel()
            assert await ended is None
            raise
        if isinstance(self.outcome, OSError):
            raise self.outcome
        return self.protocols[-1] if self.protocols else None

    async def secure_all(self) -> None:
        """Until it is cancelled; failures are as good as any other end."""
        async with asyncio.TaskGroup() as group:
            slots = asyncio.Semaphore(16)

            async def one() -> None:
                try:
                    await self.secure_next()
                except OSError:
                    pass
                finally:
                    slots.release()

            while True:
                await slots.acquire()
                group.create_task(one())


@asynccontextmanager
async def opened(terminator: Terminator, protocol_factory: Callable[[], Notes] = Shout) -> AsyncIterator[Door]:
    door = Door(terminator, protocol_factory)
    try:
        yield door
    finally:
        door.listener.close()
        for each in door.protocols:
            if "made" in each.events:
                each.transport.abort()
                await each.lost.wait()
        await asyncio.sleep(0)
        terminator.close()


def client_context(certificate: Certificate, **options: Any) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=certificate.public)
    for name, value in options.items():
        setattr(context, name, value)
    return context


async def connect(
    door: Door, context: ssl.SSLContext, **options: Any
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection(*door.address, ssl=context, server_hostname="localhost", **options)


@asynccontextmanager
async def met(
    terminator: Terminator, certificate: Certificate, protocol_factory: Callable[[], Notes] = Notes, **options: Any
) -> AsyncIterator[tuple[Any, asyncio.StreamReader, asyncio.StreamWriter]]:
    """A protocol, and the streams of the client that it is connected to."""
    async with opened(terminator, protocol_factory) as door:
        securing = asyncio.create_task(door.secure_next())
        reader, writer = await connect(door, client_context(certificate), **options)
        try:
            yield await securing, reader, writer
        finally:
            await leave(writer)


async def leave(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()
    await asyncio.sleep(0)


def plain_client(address: tuple[str, int], context: ssl.SSLContext, session: ssl.SSLSession | None = None) -> Any:
    """A client that blocks, to be used in a thread. An end without good-bye is an error to it."""
    return context.wrap_socket(
        socket.create_connection(address),
        server_hostname="localhost",
        suppress_ragged_eofs=False,
        session=session,
    )


def run(scene: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(scene())
