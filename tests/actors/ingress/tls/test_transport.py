"""What protocols rely on in a transport: the same over asyncio's own TLS and over ours."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import ssl
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from slabwire.actors.ingress.certificates.certificate import Certificate
from slabwire.actors.ingress.certificates.development import development_certificate
from slabwire.actors.ingress.tls.terminator import Terminator
from tls_stage import ENGINES, Notes, Shout, client_context, connect, met, opened, plain_client, run, terminator_of


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    folder: Path = tmp_path_factory.mktemp("state")
    return development_certificate("localhost", folder / "tls")


@pytest.fixture(params=ENGINES)
def terminator(request: pytest.FixtureRequest, certificate: Certificate) -> Terminator:
    return terminator_of(request.param, certificate)


LARGE = random.Random(1).randbytes(5_000_001)


async def until(condition: Any) -> None:
    while not condition():
        await asyncio.sleep(0.001)


# -- what is told of a connection -------------------------------------------------------------------------------------


def test_a_transport_tells_of_its_connection(certificate: Certificate, terminator: Terminator) -> None:
    async def scene() -> None:
        async with met(terminator, certificate) as (protocol, _, writer):
            transport = protocol.transport
            assert transport.get_extra_info("sslcontext")
            assert transport.get_extra_info("peername") == writer.get_extra_info("sockname")
            assert transport.get_extra_info("sockname") == writer.get_extra_info("peername")
            accepted = transport.get_extra_info("socket")
            assert accepted.getpeername() == writer.get_extra_info("sockname")
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert transport.get_extra_info("nothing") is None
            assert transport.get_extra_info("nothing", 5) == 5
            facts = transport.get_extra_info("ssl_object")
            assert facts.version() == "TLSv1.3"
            assert facts.cipher() == writer.get_extra_info("ssl_object").cipher()
            assert facts.selected_alpn_protocol() is None
            assert not facts.session_reused
            assert transport.get_protocol() is protocol
            assert not transport.is_closing()

    run(scene)


def test_another_protocol_may_take_over(certificate: Certificate, terminator: Terminator) -> None:
    async def scene() -> None:
        async with met(terminator, certificate) as (protocol, _, writer):
            other = Notes()
            protocol.transport.set_protocol(other)
            writer.write(b"hello")
            await until(lambda: other.data == b"hello")
            await writer.drain()
            protocol.transport.set_protocol(protocol)
            assert protocol.data == b""

    run(scene)


# -- writing ----------------------------------------------------------------------------------------------------------


def test_bytes_of_all_kinds_are_written(certificate: Certificate, terminator: Terminator) -> None:
    async def scene() -> None:
        async with met(terminator, certificate) as (protocol, reader, _):
            changed = bytearray(b"two ")
            protocol.transport.write(b"one ")
            protocol.transport.write(changed)
            changed[:] = b"gone"
            protocol.transport.write(memoryview(b"three "))
            protocol.transport.write(b"")
            protocol.transport.writelines([b"four ", bytearray(b"five "), b"six"])
            assert await reader.readexactly(27) == b"one two three four five six"
            with pytest.raises(TypeError):
                protocol.transport.write("text")

    run(scene)


def test_a_slow_reader_holds_up_the_writer_and_gets_all(certificate: Certificate, terminator: Terminator) -> None:
    async def scene() -> None:
        async with met(terminator, certificate, limit=1024) as (protocol, reader, _):
            transport, sent = protocol.transport, bytearray()
            transport.set_write_buffer_limits(high=30_000, low=10_000)
            while "pause" not in protocol.events:
                piece = random.Random(len(sent)).randbytes(10_000)
                transport.write(piece)
                sent += piece
                await asyncio.sleep(0)
            assert 30_000 < transport.get_write_buffer_size() < 60_000
            transport.write(b"end")  # asks once
            received = bytearray()
            while not received.endswith(b"end"):
                received += await reader.read(1000)
            assert received == sent + b"end"
            assert transport.get_write_buffer_size() == 0
            assert protocol.events == ["made", "pause", "resume"]

    run(scene)


def test_limits_that_make_no_sense_are_refused(certificate: Certificate, terminator: Terminator) -> None:
    async def scene() -> None:
        async with met(terminator, certificate) as (protocol, _, _):
            transport = protocol.transport
            transport.set_write_buffer_limits(high=8)
            assert transport.get_write_buffer_limits() == (2, 8)
            transport.set_write_buffer_limits(low=8)
            assert transport.get_write_buffer_limits() == (8, 32)
            with pytest.raises(ValueError, match="high"):
                transport.set_write_buffer_limits(high=1, low=2)
            assert not transport.can_write_eof()

    run(scene)


@pytest.mark.parametrize("nbytes", [1, 16_383, 16_384, 16_385, 100_000, len(LARGE)])
def test_any_size_arrives_as_it_was_both_ways(certificate: Certificate, terminator: Terminator, nbytes: int) -> None:
    async def scene() -> None:
        async with met(terminator, certificate, limit=1 << 20) as (protocol, reader, writer):
            writer.write(LARGE[-nbytes:])
            protocol.transport.write(LARGE[:nbytes])
            assert await reader.readexactly(nbytes) == LARGE[:nbytes]
            await writer.drain()
            await until(lambda: len(protocol.data) == nbytes)
            assert protocol.data == LARGE[-nbytes:]

    run(scene)


# -- reading ----------------------------------------------------------------------------------------------------------


def test_what_pauses_reads_nothing_until_it_resumes(certificate: Certificate, terminator: Terminator) -> None:
    async def scene() -> None:
        async with met(terminator, certificate) as (protocol, _, writer):
            protocol.transport.pause_reading()
            assert not protocol.transport.is_reading()
            protocol.transport.pause_reading()  # twice is once
            writer.write(b"hello")
            await writer.drain()
            await asyncio.sleep(0.02)
            assert protocol.data == b""
            protocol.transport.resume_reading()
            protocol.transport.resume_reading()
            assert protocol.transport.is_reading()
            await until(lambda: protocol.data == b"hello")

    run(scene)


class Sips(Notes):
    """Pauses after each piece, and resumes in the next turn but one."""

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self.transport.pause_reading()
        asyncio.get_running_loop().call_later(0, self.transport.resume_reading)


def test_nothing_is_forgotten_between_pauses(certificate: Certificate, terminator: Terminator) -> None:
    async def scene() -> None:
        async with met(terminator, certificate, Sips) as (protocol, _, writer):
            for at in range(0, 300_000, 7_001):
                writer.write(LARGE[at : min(at + 7_001, 300_000)])
            await until(lambda: len(protocol.data) == 300_000)
            assert protocol.data == LARGE[:300_000]

    run(scene)


class Paused(Notes):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.transport.pause_reading()


def test_reading_may_be_paused_from_the_start(certificate: Certificate) -> None:
    async def scene() -> None:
        async with met(terminator_of("libssl", certificate), certificate, Paused) as (protocol, _, writer):
            writer.write(b"hello")
            await asyncio.sleep(0.02)
            assert protocol.data == b""
            protocol.transport.resume_reading()
            await until(lambda: protocol.data == b"hello")

    run(scene)


# -- the end ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("nbytes", [0, 5, 100_000, len(LARGE)])
def test_close_delivers_what_was_written_and_a_good_bye(
    certificate: Certificate, terminator: Terminator, nbytes: int
) -> None:
    def read_all(address: tuple[str, int], context: ssl.SSLContext) -> bytes:
        with plain_client(address, context) as client:
            return b"".join(iter(lambda: client.recv(100_000), b""))

    async def scene() -> None:
        async with opened(terminator, Notes) as door:
            reading = asyncio.create_task(asyncio.to_thread(read_all, door.address, client_context(certificate)))
            protocol = await door.secure_next()
            assert protocol is not None
            protocol.transport.write(LARGE[:nbytes])
            protocol.transport.close()
            assert protocol.transport.is_closing()
            protocol.transport.write(b"too late")
            assert await reading == LARGE[:nbytes]
            await protocol.lost.wait()
            assert protocol.error is None
            assert protocol.events[-1] == "lost"

    run(scene)


def test_abort_ends_at_once_and_is_told_once(certificate: Certificate, terminator: Terminator) -> None:
    async def scene() -> None:
        async with met(terminator, certificate) as (protocol, reader, _):
            protocol.transport.write(bytes(10_000_000))
            protocol.transport.abort()
            protocol.transport.abort()
            assert protocol.transport.is_closing()
            assert protocol.events.count("lost") == 0  # it is told by the loop, and not from within
            await protocol.lost.wait()
            with contextlib.suppress(OSError):
                while await reader.read(1 << 20):
                    continue
            await asyncio.sleep(0.01)
            assert protocol.events.count("lost") == 1
            assert protocol.error is None

    run(scene)


def test_a_peer_that_takes_its_leave_ends_it(certificate: Certificate, terminator: Terminator) -> None:
    async def scene() -> None:
        async with met(terminator, certificate) as (protocol, _, writer):
            writer.write(b"bye")
            writer.close()
            await protocol.lost.wait()
            assert (protocol.data, protocol.error) == (b"bye", None)
            assert protocol.events == ["made", "eof", "lost"]
            protocol.transport.close()

    run(scene)


def test_a_peer_that_vanishes_ends_it_too(certificate: Certificate, terminator: Terminator) -> None:
    async def scene() -> None:
        async with met(terminator, certificate) as (protocol, _, writer):
            plain = writer.get_extra_info("socket")
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            writer.transport.abort()
            await protocol.lost.wait()
            assert protocol.events[-1] == "lost"

    run(scene)


class Fails(Notes):
    def data_received(self, data: bytes) -> None:
        raise ValueError("no")


def test_a_protocol_that_raises_loses_its_connection(certificate: Certificate, terminator: Terminator) -> None:
    async def scene() -> None:
        told: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context["exception"]))
        async with met(terminator, certificate, Fails) as (protocol, _, writer):
            writer.write(b"x")
            await protocol.lost.wait()
            assert "no" in str(told[0])

    run(scene)


# -- of ours alone ----------------------------------------------------------------------------------------------------


def test_small_writes_that_wait_leave_in_one_record(certificate: Certificate) -> None:
    """The client's `recv` returns at most one record."""
    sizes: list[int] = []

    def read_all(address: tuple[str, int], context: ssl.SSLContext, go: Any) -> None:
        with plain_client(address, context) as client:
            go.result()
            sizes.extend(iter(lambda: len(client.recv(1 << 20)), 0))

    async def scene() -> None:
        async with opened(terminator_of("libssl", certificate), Notes) as door:
            go: Future[None] = Future()
            context = client_context(certificate)
            reading = asyncio.create_task(asyncio.to_thread(read_all, door.address, context, go))
            protocol = await door.secure_next()
            assert protocol is not None
            protocol.transport.write(b"a" * 100)
            protocol.transport.write(b"b" * 200)
            while not protocol.transport.get_write_buffer_size():
                protocol.transport.write(bytes(16_384))
            waiting = protocol.transport.get_write_buffer_size()
            for _ in range(100):
                protocol.transport.write(b"c" * 100)
            protocol.transport.close()
            go.set_result(None)
            await reading
            assert sizes[:2] == [100, 200]
            assert set(sizes[2:-1]) == {16_384}
            assert sizes[-1] == (waiting + 10_000) % 16_384 or sizes[-1] == 16_384

    run(scene)


def test_a_close_that_the_peer_does_not_heed_has_its_time(
    certificate: Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("slabwire.actors.ingress.tls.shared.CLOSE_WITHIN_S", 0.05)

    async def scene() -> None:
        for waiting in (b"", bytes(10_000_000)):
            async with met(terminator_of("libssl", certificate), certificate, limit=10) as (protocol, _, writer):
                transport: Any = writer.transport
                transport._ssl_protocol._transport.pause_reading()  # of the socket, below TLS
                protocol.transport.write(waiting)
                protocol.transport.close()
                await protocol.lost.wait()
                assert isinstance(protocol.error, TimeoutError)

    run(scene)


def test_one_connection_does_not_keep_the_loop_to_itself(certificate: Certificate) -> None:
    async def scene() -> None:
        async with opened(terminator_of("libssl", certificate), Shout) as door:
            pairs = []
            for _ in range(2):
                securing = asyncio.create_task(door.secure_next())
                pairs.append(await connect(door, client_context(certificate), limit=1 << 24))
                await securing
            (_, greedy), (reader, modest) = pairs
            for _ in range(3):
                greedy.write(LARGE)
                modest.write(b"hello")
                assert await reader.readexactly(5) == b"HELLO"
                assert len(door.protocols[0].data) < 3 * len(LARGE)
            for _, writer in pairs:
                writer.transport.abort()

    run(scene)


def test_loops_in_several_threads_do_not_mix_what_they_read(certificate: Certificate) -> None:
    async def scene(seed: int) -> None:
        data = random.Random(seed).randbytes(3_000_000)
        async with met(terminator_of("libssl", certificate), certificate) as (protocol, _, writer):
            writer.write(data)
            await until(lambda: len(protocol.data) == len(data))
            assert protocol.data == data

    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(3) as threads:
            list(threads.map(lambda seed: run(lambda: scene(seed)), range(3)))
    finally:
        sys.setswitchinterval(usual)
