"""What servers that bind libssl have stumbled over: each held by a test that would fail where it came back."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import random
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from slabwire.actors.ingress.certificates.certificate import Certificate
from slabwire.actors.ingress.certificates.development import development_certificate
from slabwire.actors.ingress.tickets.memory import OwnKeys
from slabwire.actors.ingress.tls import context as context_module
from slabwire.actors.ingress.tls.context import ServerContext
from slabwire.actors.ingress.tls.libssl import libssl
from slabwire.actors.ingress.tls.secured import Facts, Secured
from slabwire.actors.ingress.tls.states import State
from slabwire.actors.ingress.tls.terminator import Terminator
from slabwire.actors.ingress.tls.tickets import Tickets
from tls_stage import Notes, Shout, client_context, connect, leave, met, opened, plain_client, run, terminator_of

LARGE = random.Random(1).randbytes(3_000_000)
# Of Linux: as long as an acknowledgement is held back.
DELAYED_ACK_S = 0.04


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    folder: Path = tmp_path_factory.mktemp("state")
    return development_certificate("localhost", folder / "tls")


@pytest.fixture
def terminator(certificate: Certificate) -> Terminator:
    return terminator_of("libssl", certificate)


async def until(condition: Callable[[], Any]) -> None:
    while not condition():
        await asyncio.sleep(0.001)


# -- small packets ----------------------------------------------------------------------------------------------------


class AnswersInParts(Notes):
    """Head and body apart, as uvicorn does."""

    def data_received(self, data: bytes) -> None:
        self.transport.write(b"head")
        self.transport.write(b"body")


def test_no_answer_waits_for_an_acknowledgement(certificate: Certificate, terminator: Terminator) -> None:
    """The ticket, the head, the body: three small records. With Nagle's algorithm each connection would stand still for
    40 ms, so the quickest of many tells, however busy the machine is.
    """

    def ask(address: tuple[str, int]) -> float:
        began = time.monotonic()
        with plain_client(address, client_context(certificate)) as client:
            client.sendall(b"x")
            while (received := client.recv(8)) and received != b"body":
                continue
            return time.monotonic() - began

    async def scene() -> None:
        async with opened(terminator, AnswersInParts) as door:
            serving = asyncio.create_task(door.secure_all())
            took = [await asyncio.to_thread(ask, door.address) for _ in range(20)]
            assert min(took) < DELAYED_ACK_S
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)

    run(scene)


# -- what libssl crashes of -------------------------------------------------------------------------------------------


def test_what_is_agreed_on_can_be_asked_at_any_time(certificate: Certificate) -> None:
    """Where there is no session yet, libssl follows a null pointer to the group."""
    library = libssl()
    tickets = Tickets(library, OwnKeys(), b"")
    shared = ServerContext(library, [certificate], "1.3", tickets)
    here, there = socket.socketpair()
    with here, there:
        here.setblocking(False)
        secured = Secured(library, ctypes.create_string_buffer(1 << 14))
        facts = Facts(secured)

        def told() -> tuple[Any, ...]:
            protocol = facts.selected_alpn_protocol()
            return facts.version(), facts.cipher(), facts.group(), facts.session_reused, protocol

        assert set(told()) == {None}
        secured.begin(shared.pointer, here.fileno())
        assert set(told()) == {None}
        there.sendall(b"\x16\x03\x01\x00\x05")
        assert not secured.handshake()
        assert secured.state is State.HANDSHAKING
        assert set(told()) == {None}
        secured.free()
        assert set(told()) == {None}


@pytest.mark.parametrize("moment", ["connection_made", "data_received", "eof_received"])
@pytest.mark.parametrize("how", ["abort", "close"])
def test_a_connection_may_be_ended_wherever_its_protocol_is_called(
    certificate: Certificate, terminator: Terminator, monkeypatch: pytest.MonkeyPatch, moment: str, how: str
) -> None:
    """Libssl lets go of a connection only when nobody is inside of it: never from within the protocol's call."""
    library, freed = libssl(), list[int]()
    free, calling = library.SSL_free, list[bool]()

    class Ends(Shout):
        pass

    def ends(self: Ends, *arguments: Any) -> None:
        getattr(Shout, moment)(self, *arguments)
        calling.append(True)
        getattr(self.transport, how)()
        self.transport.write(b"too late")
        calling.pop()

    setattr(Ends, moment, ends)

    def noted(ssl_: int) -> None:
        assert not calling
        freed.append(ssl_)
        free(ssl_)

    monkeypatch.setattr(library, "SSL_free", noted)

    def talk(address: tuple[str, int]) -> None:
        with contextlib.suppress(OSError), plain_client(address, client_context(certificate)) as client:
            client.sendall(b"x")
            client.unwrap()

    async def scene() -> None:
        async with opened(terminator, Ends) as door:
            talking = asyncio.create_task(asyncio.to_thread(talk, door.address))
            protocol = await door.secure_next()
            assert protocol is not None
            await talking
            await protocol.lost.wait()
            await until(lambda: freed)
            assert protocol.events.count("lost") == 1

    run(scene)
    assert len(freed) == 1


# -- callbacks --------------------------------------------------------------------------------------------------------


def test_a_callback_that_fails_costs_one_connection(
    certificate: Certificate, terminator: Terminator, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """What a callback of ctypes raises is printed and forgotten, and the result is 0, which would mean: chosen."""
    context = client_context(certificate)
    context.set_alpn_protocols(["http/1.1"])

    async def scene() -> None:
        async with opened(terminator) as door:
            with monkeypatch.context() as patched:
                for error in (ValueError, MemoryError, KeyboardInterrupt):

                    def fails(offered: bytes, error: type[BaseException] = error) -> None:
                        raise error("no")

                    patched.setattr(context_module, "choose_protocol", fails)
                    securing = asyncio.create_task(door.secure_next())
                    with pytest.raises(OSError):  # noqa: PT011
                        await connect(door, context)
                    with pytest.raises(OSError, match="no application protocol"):
                        await securing
            securing = asyncio.create_task(door.secure_next())
            _, writer = await connect(door, context)
            assert writer.get_extra_info("ssl_object").selected_alpn_protocol() == "http/1.1"
            await securing
            await leave(writer)

    run(scene)
    assert capfd.readouterr().err == ""


@pytest.fixture
def collecting() -> Iterator[None]:
    """Garbage is collected at nearly every object that is made."""
    usual = gc.get_threshold()
    gc.set_threshold(1, 1, 1)
    yield
    gc.set_threshold(*usual)


def test_what_libssl_calls_is_not_collected(certificate: Certificate, collecting: None) -> None:
    async def scene() -> None:
        context = client_context(certificate)
        context.set_alpn_protocols(["http/1.1"])
        made = terminator_of("libssl", certificate)
        async with opened(made) as door:
            del made
            for _ in range(5):
                securing = asyncio.create_task(door.secure_next())
                reader, writer = await connect(door, context)
                await securing
                writer.write(b"hello")
                assert await reader.readexactly(5) == b"HELLO"
                await leave(writer)

    run(scene)


# -- errors of others -------------------------------------------------------------------------------------------------


def fail_in_libssl(certificate: Certificate) -> None:
    """Leaves errors in this thread's queue, as any user of OpenSSL may."""
    library = libssl()
    pointer = library.SSL_CTX_new(library.TLS_server_method())
    assert library.SSL_CTX_set_cipher_list(pointer, b"none of this name") != 1
    library.SSL_CTX_free(pointer)
    with pytest.raises(ssl.SSLError):
        ssl.create_default_context(cadata="nonsense")


def test_errors_that_others_have_left_are_not_taken_for_ours(certificate: Certificate, terminator: Terminator) -> None:
    class Fails(Shout):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            fail_in_libssl(certificate)

        def data_received(self, data: bytes) -> None:
            fail_in_libssl(certificate)
            super().data_received(data)
            fail_in_libssl(certificate)

    async def scene() -> None:
        async with opened(terminator, Fails) as door:
            fail_in_libssl(certificate)
            securing = asyncio.create_task(door.secure_next())
            fail_in_libssl(certificate)
            reader, writer = await connect(door, client_context(certificate), limit=1 << 22)
            await securing
            for data in (b"one", b"two", LARGE):
                writer.write(data)
                fail_in_libssl(certificate)
                assert await reader.readexactly(len(data)) == data.upper()
            writer.close()
            await door.protocols[0].lost.wait()
            assert door.protocols[0].error is None

    run(scene)


def test_nor_by_a_small_write_for_which_there_is_no_room(certificate: Certificate, terminator: Terminator) -> None:
    """The client is in another thread, for what is left in this one's queue would harm it."""

    def leave_an_error() -> None:
        library = libssl()
        library.ERR_clear_error()
        library.SSL_CTX_set_cipher_list(context, b"none of this name")

    def read(address: tuple[str, int], go: threading.Event) -> bytes:
        with plain_client(address, client_context(certificate)) as client:
            go.wait()
            return b"".join(iter(lambda: client.recv(1 << 16), b""))

    async def scene() -> None:
        async with opened(terminator, Notes) as door:
            go = threading.Event()
            reading = asyncio.create_task(asyncio.to_thread(read, door.address, go))
            protocol = await door.secure_next()
            assert protocol is not None
            transport, sent = protocol.transport, bytearray()
            while transport.get_write_buffer_size() < 50_000 and not transport.is_closing():
                sent += b"%07d " % len(sent) * 500
                leave_an_error()
                transport.write(bytes(sent[-4000:]))
            go.set()
            assert not transport.is_closing()
            while transport.get_write_buffer_size():
                leave_an_error()
                await asyncio.sleep(0)
            leave_an_error()
            transport.write(b"last")
            transport.close()
            assert await reading == sent + b"last"

    context = libssl().SSL_CTX_new(libssl().TLS_server_method())
    try:
        run(scene)
    finally:
        libssl().SSL_CTX_free(context)
        libssl().ERR_clear_error()


# -- what is not sent or not read yet ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [bytearray, memoryview])
def test_what_was_written_may_be_changed_at_once(certificate: Certificate, terminator: Terminator, kind: Any) -> None:
    """Also where it waits behind other data: a view of a buffer that is used again would send what came later."""

    async def scene() -> None:
        async with met(terminator, certificate, limit=1024) as (protocol, reader, _):
            buffer, sent = bytearray(50_000), bytearray()
            while protocol.transport.get_write_buffer_size() < 1_000_000:
                buffer[:] = random.Random(len(sent)).randbytes(len(buffer))
                sent += buffer
                protocol.transport.write(kind(buffer))
                buffer[:] = bytes(len(buffer))
            assert await reader.readexactly(len(sent)) == sent

    run(scene)


class Reluctant(Notes):
    """Reads nothing before it is told to."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.transport.pause_reading()


def test_what_comes_with_the_end_of_a_handshake_waits_in_the_kernel(
    certificate: Certificate, terminator: Terminator
) -> None:
    """A client sends as fast as it can, from the flight that ends its handshake on; the protocol does not read."""

    def pour(address: tuple[str, int]) -> bool:
        with plain_client(address, client_context(certificate)) as client:
            client.settimeout(0.3)
            try:
                for _ in range(100):
                    client.sendall(LARGE)
            except TimeoutError:
                return True
            except OSError:
                return False
        return False

    async def scene() -> None:
        async with opened(terminator, Reluctant) as door:
            pouring = asyncio.create_task(asyncio.to_thread(pour, door.address))
            protocol = await door.secure_next()
            assert protocol is not None
            assert await pouring  # it was held up
            assert protocol.data == b""
            protocol.transport.resume_reading()
            await until(lambda: len(protocol.data) > 100_000)
            assert LARGE.startswith(protocol.data[:100_000])

    run(scene)
