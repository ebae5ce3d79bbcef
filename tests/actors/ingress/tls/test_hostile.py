"""Clients that send nonsense, send it slowly, or vanish: nothing is left of them, and others are served meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from slabwire.actors.ingress.certificates.certificate import Certificate
from slabwire.actors.ingress.certificates.development import development_certificate
from slabwire.actors.ingress.tls.libssl import libssl
from tls_stage import Door, client_context, connect, leave, opened, run, terminator_of

RESET = b"\1\0\0\0\0\0\0\0"  # struct linger: at once


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    folder: Path = tmp_path_factory.mktemp("state")
    return development_certificate("localhost", folder / "tls")


@pytest.fixture(autouse=True)
def all_freed(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """No SSL is left behind, and none is freed twice."""
    library, alive, seen = libssl(), set[int](), list[int]()
    make, free = library.SSL_new, library.SSL_free

    def made(context: int) -> int:
        seen.append(int(make(context)))
        alive.add(seen[-1])
        return seen[-1]

    def freed(ssl_: int) -> None:
        alive.remove(ssl_)
        free(ssl_)

    monkeypatch.setattr(library, "SSL_new", made)
    monkeypatch.setattr(library, "SSL_free", freed)
    yield seen
    assert not alive


class BytesClient:
    """A client whose TLS is here, and whose bytes are sent as somebody likes."""

    def __init__(self, address: tuple[str, int], context: ssl.SSLContext) -> None:
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname="localhost")
        self.socket = socket.create_connection(address)
        self.socket.setblocking(False)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def hello(self) -> bytes:
        with contextlib.suppress(ssl.SSLWantReadError):
            self.tls.do_handshake()
        return self.outgoing.read()

    async def finish(self) -> bytes:
        """What ends the handshake, once the server has answered."""
        while True:
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                self.incoming.write(await asyncio.get_running_loop().sock_recv(self.socket, 1 << 16))
            else:
                return self.outgoing.read()

    def record(self, data: bytes) -> bytes:
        self.tls.write(data)
        return self.outgoing.read()

    async def read(self) -> bytes:
        while True:
            try:
                return self.tls.read(1 << 16)
            except ssl.SSLWantReadError:
                self.incoming.write(await asyncio.get_running_loop().sock_recv(self.socket, 1 << 16))

    async def trickle(self, data: bytes) -> None:
        for at in range(len(data)):
            self.socket.send(data[at : at + 1])
            await asyncio.sleep(0)
            await asyncio.sleep(0)

    def vanish(self, *, reset: bool = False) -> None:
        if reset:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self.socket.close()


def mutated_by(source: random.Random, hello: bytes) -> bytes:
    """A hello with some bytes changed, cut out, doubled or cut off; or nothing but noise."""
    damaged = bytearray(hello)
    for _ in range(source.randrange(1, 8)):
        at, kind = source.randrange(len(damaged)), source.randrange(5)
        if kind < 2:
            damaged[at] = source.randrange(256)
        elif kind == 2:
            del damaged[at : at + source.randrange(1, 40)]
        elif kind == 3:
            damaged[at:at] = damaged[at : at + source.randrange(1, 400)]
        else:
            damaged[at:] = source.randbytes(source.randrange(600))
        if not damaged:
            break
    return bytes(damaged) if source.random() < 0.9 else b"\x16" + source.randbytes(source.randrange(20_000))


async def honest(door: Door, context: ssl.SSLContext) -> None:
    reader, writer = await connect(door, context)
    writer.write(b"hello")
    assert await reader.readexactly(5) == b"HELLO"
    await leave(writer)


# -- slowly -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["rest", "end", "reset", "cancel"])
@pytest.mark.parametrize("nbytes", [1, 5, 100])
def test_libssl_has_no_part_until_a_hello_is_whole(
    certificate: Certificate, all_freed: list[int], nbytes: int, ending: str
) -> None:
    async def scene() -> None:
        async with opened(terminator_of("libssl", certificate)) as door:
            securing = asyncio.create_task(door.secure_next())
            client = BytesClient(door.address, client_context(certificate))
            hello = client.hello()
            client.socket.send(hello[:nbytes])
            await asyncio.sleep(0.02)
            assert all_freed == []
            if ending == "rest":
                client.socket.send(hello[nbytes:])
                client.socket.send(await client.finish())
                assert await securing is not None
            elif ending == "cancel":
                securing.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await securing
                assert await asyncio.get_running_loop().sock_recv(client.socket, 9) == b""  # and no reset
            else:
                client.vanish(reset=ending == "reset")
                with pytest.raises(OSError):  # noqa: PT011
                    await securing
            client.vanish()

    run(scene)


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_records_may_be_cut_at_every_byte(certificate: Certificate, version: str) -> None:
    context = client_context(certificate)
    context.maximum_version = ssl.TLSVersion.TLSv1_2 if version == "1.2" else ssl.TLSVersion.TLSv1_3

    async def scene() -> None:
        async with opened(terminator_of("libssl", certificate, "1.2")) as door:
            securing = asyncio.create_task(door.secure_next())
            client = BytesClient(door.address, context)
            await client.trickle(client.hello())
            if version == "1.2":
                while not (said := client.outgoing.read()):
                    with contextlib.suppress(ssl.SSLWantReadError):
                        client.incoming.write(await asyncio.get_running_loop().sock_recv(client.socket, 1 << 16))
                        client.tls.do_handshake()
                await client.trickle(said)
            await client.trickle(await client.finish())
            await securing
            for text in (b"a", b"hello " * 100):
                await client.trickle(client.record(text))
                assert await client.read() == text.upper()
            with contextlib.suppress(ssl.SSLWantReadError):
                client.tls.unwrap()
            await client.trickle(client.outgoing.read())
            await door.protocols[0].lost.wait()
            assert door.protocols[0].events == ["made", "eof", "lost"]
            client.vanish()

    run(scene)


# -- gone -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("stage", range(8))
def test_a_client_may_vanish_at_any_stage(certificate: Certificate, stage: int, reset: bool) -> None:
    async def scene() -> None:
        async with opened(terminator_of("libssl", certificate)) as door:
            securing = asyncio.create_task(door.secure_next())
            client = BytesClient(door.address, client_context(certificate))
            loop, hello = asyncio.get_running_loop(), client.hello()
            said = [b"", hello[:1], hello[1:200], hello[200:]]
            for each in said[: stage + 1]:
                await loop.sock_sendall(client.socket, each)
                await asyncio.sleep(0.005)
            if stage > 3:
                finished = await client.finish()
                request = client.record(b"request")
                for each in [finished[:20], finished[20:], request[:10], request[10:]][: stage - 3]:
                    await loop.sock_sendall(client.socket, each)
                    await asyncio.sleep(0.005)
            client.vanish(reset=reset)
            if stage < 5:
                with pytest.raises(ConnectionError):
                    await securing
            else:
                await securing
                await door.protocols[0].lost.wait()
                assert isinstance(door.protocols[0].error, ConnectionError)
                assert bytes(door.protocols[0].data) == (b"request" if stage == 7 else b"")

    run(scene)


def test_a_client_may_vanish_while_it_is_written_to(certificate: Certificate) -> None:
    async def scene() -> None:
        async with opened(terminator_of("libssl", certificate)) as door:
            securing = asyncio.create_task(door.secure_next())
            _, writer = await connect(door, client_context(certificate), limit=10)
            protocol = await securing
            assert protocol is not None
            protocol.transport.write(bytes(20_000_000))
            protocol.transport.close()
            await asyncio.sleep(0.01)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            writer.transport.abort()
            await protocol.lost.wait()
            assert protocol.transport.get_write_buffer_size() == 0
            facts: Any = protocol.transport.get_extra_info("ssl_object")
            told = (facts.version(), facts.cipher(), facts.group(), facts.session_reused)
            assert told == (None, None, None, None)
            assert facts.selected_alpn_protocol() is None

    run(scene)


# -- nonsense ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [300, pytest.param(5000, marks=pytest.mark.long)])
def test_mutated_hellos_harm_nobody(certificate: Certificate, all_freed: list[int], count: int) -> None:
    source = random.Random(count)

    async def scene() -> None:
        async with opened(terminator_of("libssl", certificate, "1.2")) as door:
            serving = asyncio.create_task(door.secure_all())
            context = client_context(certificate)
            await honest(door, context)  # what is opened once
            descriptors = len(os.listdir("/proc/self/fd"))
            for number in range(count):
                client = BytesClient(door.address, context)
                with contextlib.suppress(OSError):
                    await asyncio.get_running_loop().sock_sendall(client.socket, mutated_by(source, client.hello()))
                    client.socket.shutdown(socket.SHUT_WR)
                    while await asyncio.get_running_loop().sock_recv(client.socket, 1 << 16):
                        continue
                client.vanish()
                if number % 50 == 0:
                    await honest(door, context)
            await honest(door, context)
            for each in door.protocols:
                await each.lost.wait()
            await asyncio.sleep(0.05)
            assert len(os.listdir("/proc/self/fd")) <= descriptors
            assert len(all_freed) > count // 2
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)

    run(scene)


def test_nonsense_in_place_of_a_record_ends_the_connection(certificate: Certificate) -> None:
    async def scene() -> None:
        for damaged in (b"\x17\x03\x03\x00\x20" + bytes(32), b"\x17\x03\x03\xff\xff", bytes(5), b"\x16" * 40):
            async with opened(terminator_of("libssl", certificate)) as door:
                securing = asyncio.create_task(door.secure_next())
                client = BytesClient(door.address, client_context(certificate))
                loop = asyncio.get_running_loop()
                await loop.sock_sendall(client.socket, client.hello())
                await loop.sock_sendall(client.socket, await client.finish())
                await loop.sock_sendall(client.socket, client.record(b"a"))
                await securing
                assert await client.read() == b"A"
                await loop.sock_sendall(client.socket, damaged)
                await door.protocols[0].lost.wait()
                assert isinstance(door.protocols[0].error, ConnectionError)
                with pytest.raises(ssl.SSLError, match="ALERT"):
                    await client.read()
                client.vanish()

    run(scene)
