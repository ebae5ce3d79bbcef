"""Very many connections: half of one, or one after the other. The server lets go of all of them, and serves others."""

from __future__ import annotations

import resource
import socket
import ssl
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from slabwire.actors.ingress.certificates.certificate import Certificate
from slabwire.actors.ingress.certificates.development import development_certificate
from tls_process import Process, process
from tls_stage import client_context, plain_client

GET = b"GET / HTTP/1.1\r\nhost: here\r\n\r\n"
# What the interpreter, libssl and the C library may take and keep for themselves.
SLACK_NBYTES, SLACK_BLOCKS = 2 << 20, 2000


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    folder: Path = tmp_path_factory.mktemp("state")
    return development_certificate("localhost", folder / "tls")


def ask(server: Process, context: ssl.SSLContext, session: ssl.SSLSession | None = None) -> ssl.SSLSession:
    """One request, on a connection of its own; the session for the next one."""
    with plain_client(server.address, context, session) as client:
        client.sendall(GET)
        assert client.recv(4096).startswith(b"HTTP/1.1 200 ")
        assert client.session_reused == (session is not None)
        found: ssl.SSLSession = client.session
        return found


def hello(context: ssl.SSLContext) -> bytes:
    outgoing = ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="localhost").do_handshake()
    return outgoing.read()


@contextmanager
def half_open(server: Process, begun: list[bytes], count: int) -> Iterator[list[socket.socket]]:
    """So many connections, on which some of the beginnings of a handshake have been sent."""
    clients: list[socket.socket] = []
    try:
        for number in range(count):
            clients.append(socket.create_connection(server.address))
            clients[-1].sendall(begun[number % len(begun)])
        yield clients
    finally:
        for each in clients:
            each.close()


def first_asked(server: Process, context: ssl.SSLContext) -> dict[str, int]:
    """What it holds after its first client, who makes it open what it keeps."""
    ask(server, context)
    while (holds := server.holds())["connections"]:
        time.sleep(0.01)
    return holds


def await_calm(server: Process, descriptors: int) -> dict[str, int]:
    """What it holds when it has let go of everybody."""
    while (holds := server.holds())["descriptors"] > descriptors:
        time.sleep(0.01)
    return holds


# -- half-open --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1_000, pytest.param(10_000, marks=pytest.mark.long)])
def test_half_open_connections_keep_nobody_out_and_leave_nothing(certificate: Certificate, count: int) -> None:
    if resource.getrlimit(resource.RLIMIT_NOFILE)[0] < count + 256:
        pytest.skip(f"needs {count + 256} open files (`ulimit -n`)")
    context = client_context(certificate)
    whole = hello(context)
    with process(certificate, connections=count + 64) as server:
        before = first_asked(server, context)
        after = []
        for _ in range(3):
            with half_open(server, [b"", whole[:1], whole[:100], whole], count):
                for _ in range(20):
                    ask(server, context)
                while server.holds()["handshakes"] < count:
                    time.sleep(0.01)  # who says nothing comes after a second
                assert server.holds()["handshakes"] == count
            after.append(await_calm(server, before["descriptors"]))
            ask(server, context)
        # What the first wave took stays with the C library for the next ones, which find some of it in pieces.
        assert after[-1]["resident"] < 1.3 * after[0]["resident"]
        assert after[-1]["malloc"] < after[0]["malloc"] + SLACK_NBYTES
        assert after[-1]["blocks"] < after[0]["blocks"] + SLACK_BLOCKS
        assert after[-1]["handshakes"] == after[-1]["connections"] == 0


def test_half_open_connections_have_their_time(certificate: Certificate) -> None:
    context = client_context(certificate)
    whole = hello(context)
    with process(certificate, connections=600, timeout_s=0.5) as server:
        before = first_asked(server, context)
        with half_open(server, [b"", whole[:1], whole[:100], whole], 500) as clients:
            while server.holds()["failed_handshakes"] < 500:
                ask(server, context)
            for each in clients:
                received = b"".join(iter(lambda each=each: each.recv(1 << 16), b""))  # type: ignore[misc]
                assert received[:1] in (b"", b"\x16")
        await_calm(server, before["descriptors"])


# -- one after the other ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("warm_up", "count"),
    [(1_000, 4_000), pytest.param(10_000, 90_000, marks=[pytest.mark.long, pytest.mark.timeout(1800)])],
)
@pytest.mark.parametrize("version", ["1.3", pytest.param("1.2", marks=pytest.mark.long)])
def test_handshakes_leave_nothing_in_memory(certificate: Certificate, version: str, warm_up: int, count: int) -> None:
    """Full and resumed ones, good ones and broken ones."""
    context = client_context(certificate)
    if version == "1.2":
        context.maximum_version = ssl.TLSVersion.TLSv1_2
    whole = hello(context)

    def some(server: Process, count: int) -> None:
        for _ in range(count // 4):
            session = ask(server, context)
            for _ in range(2):
                ask(server, context, session)
            with socket.create_connection(server.address) as broken:
                broken.sendall(whole[:-20] + b"\0" * 20)

    with process(certificate, minimum=version) as server, ThreadPoolExecutor(3) as threads:

        def handshakes(count: int) -> dict[str, int]:
            list(threads.map(lambda _: some(server, 100), range(count // 100)))
            return await_calm(server, before["descriptors"])

        before = first_asked(server, context)
        warm = handshakes(warm_up)
        after = handshakes(count)
    assert after["requests"] - warm["requests"] == count * 3 // 4
    assert after["resident"] < warm["resident"] + SLACK_NBYTES
    assert after["malloc"] < warm["malloc"] + SLACK_NBYTES // 4
    assert after["blocks"] < warm["blocks"] + SLACK_BLOCKS
