"""Nobody talks a client, or the server, into less than both can do; and what TLS has unlearnt is not spoken."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

import pytest

from raw_hello import (
    ALERT,
    CHANGE_CIPHER_SPEC,
    DECODE_ERROR,
    HANDSHAKE,
    HANDSHAKE_FAILURE,
    INAPPROPRIATE_FALLBACK,
    OUR_GROUPS,
    PROTOCOL_VERSION,
    UNEXPECTED_MESSAGE,
    VERSIONS,
    Heard,
    client_hello,
    extension,
    hear,
    record,
    said_to,
    sized,
)
from slabwire.actors.ingress.certificates.certificate import Certificate
from slabwire.actors.ingress.certificates.development import development_certificate
from slabwire.actors.ingress.tls.secured import TLSError
from slabwire.actors.ingress.tls.terminator import Minimum
from tls_stage import Door, client_context, connect, leave, opened, run, terminator_of

Found = TypeVar("Found")
SCSV_RENEGOTIATION, SCSV_FALLBACK = 0x00FF, 0x5600
# ECDHE with AES-GCM or ChaCha20, by ECDSA and by RSA: 0xC02B, 0xC02C, 0xC02F, 0xC030, 0xCCA8, 0xCCA9.
SUITES = (0xC02B, 0xC02C, 0xC02F, 0xC030, 0xCCA8, 0xCCA9)
# What a server says that could do TLS 1.3, in the last bytes of its random (RFC 8446, section 4.1.3).
SENTINEL = b"DOWNGRD\1"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    folder: Path = tmp_path_factory.mktemp("state")
    return development_certificate("localhost", folder / "tls")


@asynccontextmanager
async def served(certificate: Certificate, minimum: Minimum) -> AsyncIterator[Door]:
    """Honest clients are served at the end as ever."""
    async with opened(terminator_of("libssl", certificate, minimum)) as door:
        serving = asyncio.create_task(door.secure_all())
        yield door
        reader, writer = await connect(door, client_context(certificate))
        writer.write(b"hello")
        assert await reader.readexactly(5) == b"HELLO"
        await leave(writer)
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)


def with_server(certificate: Certificate, minimum: Minimum, ask: Callable[[tuple[str, int]], Found]) -> Found:
    """What `ask` finds, in a thread."""
    found: list[Found] = []

    async def scene() -> None:
        async with served(certificate, minimum) as door:
            found.append(await asyncio.to_thread(ask, door.address))

    run(scene)
    return found[0]


def answer(certificate: Certificate, data: bytes, minimum: Minimum = "1.2") -> Heard:
    return with_server(certificate, minimum, lambda address: said_to(address, data))


# -- versions ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("minimum", ["1.2", "1.3"])
@pytest.mark.parametrize("version", [0x0300, 0x0301, 0x0302])
def test_what_is_older_than_1_2_is_refused(certificate: Certificate, minimum: Minimum, version: int) -> None:
    alert = answer(certificate, client_hello(SUITES, version=version), minimum).alert
    assert alert == (PROTOCOL_VERSION if version > 0x0300 else HANDSHAKE_FAILURE)  # SSL 3 does not know the former


def test_the_hello_of_ssl_2_is_no_tls_to_us(certificate: Certificate) -> None:
    old = b"\x80\x2e\x01\x03\x01\x00\x15\x00\x00\x00\x10" + bytes(37)
    said = with_server(certificate, "1.2", lambda address: _all_said(address, old))
    assert said.startswith(b"HTTP/1.1 400 ")


def _all_said(address: tuple[str, int], data: bytes) -> bytes:
    with socket.create_connection(address) as client:
        client.sendall(data)
        return b"".join(iter(lambda: client.recv(1 << 16), b""))


def test_a_client_of_1_2_is_shown_that_more_was_possible(certificate: Certificate) -> None:
    assert answer(certificate, client_hello(SUITES)).random.endswith(SENTINEL)


def test_a_client_whose_1_3_was_taken_out_on_the_way_notices(certificate: Certificate) -> None:
    """Whoever sits between the two makes the extension that offers TLS 1.3 one that nobody knows."""

    def ask(address: tuple[str, int]) -> str:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = client_context(certificate).wrap_bio(incoming, outgoing, server_hostname="localhost")
        with contextlib.suppress(ssl.SSLWantReadError):
            tls.do_handshake()
        offered = extension(VERSIONS, b"\4\3\4\3\3")
        hello = outgoing.read()
        assert offered in hello
        with socket.create_connection(address) as client:
            client.sendall(hello.replace(offered, extension(0x7A7A, b"\4\3\4\3\3")))
            incoming.write(client.recv(1 << 16))
            with pytest.raises(ssl.SSLError) as refused:
                tls.do_handshake()
        return str(refused.value)

    assert "INAPPROPRIATE_FALLBACK" in with_server(certificate, "1.2", ask).upper().replace(" ", "_")


def test_who_falls_back_without_need_is_told(certificate: Certificate) -> None:
    """RFC 7507."""
    assert answer(certificate, client_hello((*SUITES, SCSV_FALLBACK))).alert == INAPPROPRIATE_FALLBACK


# -- suites, groups, compression --------------------------------------------------------------------------------------


@pytest.mark.parametrize("suite", SUITES)
def test_suites_that_fit_the_certificate_are_agreed_on(certificate: Certificate, suite: int) -> None:
    said = answer(certificate, client_hello((suite,), compressions=b"\1\0"))
    if suite in (0xC02B, 0xC02C, 0xCCA9):
        assert said.suite_and_compression == (suite, 0)
    else:
        assert said.alert == HANDSHAKE_FAILURE


def test_no_other_suite_of_all_that_there_can_be_is(certificate: Certificate) -> None:
    known = {*SUITES, SCSV_FALLBACK, SCSV_RENEGOTIATION}
    others = [each for each in range(1 << 16) if each not in known]

    def ask(address: tuple[str, int]) -> list[int | None]:
        return [said_to(address, client_hello(others[at : at + 4096])).alert for at in range(0, len(others), 4096)]

    assert set(with_server(certificate, "1.2", ask)) == {HANDSHAKE_FAILURE}


def test_no_other_group_of_all_that_there_can_be_is(certificate: Certificate) -> None:
    others = [each for each in range(1 << 16) if each not in OUR_GROUPS]

    def ask(address: tuple[str, int]) -> list[int | None]:
        slices = [others[at : at + 4096] for at in range(0, len(others), 4096)]
        return [said_to(address, client_hello(SUITES, groups=each)).alert for each in slices]

    assert set(with_server(certificate, "1.2", ask)) == {HANDSHAKE_FAILURE}


def test_no_compression_is_no_choice(certificate: Certificate) -> None:
    assert answer(certificate, client_hello(SUITES, compressions=b"\1")).alert == DECODE_ERROR


# -- what must not come in --------------------------------------------------------------------------------------------


def test_keys_are_not_changed_before_there_are_any(certificate: Certificate) -> None:
    """CVE-2014-0224."""

    def ask(address: tuple[str, int]) -> int | None:
        with socket.create_connection(address) as client:
            client.sendall(client_hello(SUITES))
            while not client.recv(1 << 16).endswith(b"\x0e\0\0\0"):  # ServerHelloDone
                continue
            client.sendall(record(b"\1", CHANGE_CIPHER_SPEC, 0x0303))
            return hear(client).alert

    assert with_server(certificate, "1.2", ask) == UNEXPECTED_MESSAGE


FLOODS: dict[str, bytes] = {
    "records without content": record(b"") * 200,
    "changes of keys": record(b"\1", CHANGE_CIPHER_SPEC) * 200,
    "warnings": record(b"\1\x5a", ALERT) * 200,
    "heartbeats": record(b"\1\x40\0", 24) * 200,
    "a hello of 16 MiB": record(b"\1\xff\xff\xff" + bytes(16_000)) + record(bytes(16_000)) * 1_000,
}


@pytest.mark.parametrize("minimum", ["1.2", "1.3"])
@pytest.mark.parametrize("flood", FLOODS)
def test_what_never_becomes_a_hello_is_ended_early(certificate: Certificate, flood: str, minimum: Minimum) -> None:
    """And not when its time has run out. Of bytes that are left unread a reset may be what the client sees."""

    def pour(address: tuple[str, int]) -> None:
        with socket.create_connection(address) as client, contextlib.suppress(ConnectionError):
            client.sendall(record(b"")[:3])  # a handshake, it seems
            client.sendall(FLOODS[flood][3:] if FLOODS[flood][0] == HANDSHAKE else sized(b"") + FLOODS[flood])
            while client.recv(1 << 16):
                continue

    async def scene() -> None:
        async with opened(terminator_of("libssl", certificate, minimum)) as door:
            pouring = asyncio.create_task(asyncio.to_thread(pour, door.address))
            with pytest.raises(TLSError):
                await door.secure_next()
            await pouring

    run(scene)
