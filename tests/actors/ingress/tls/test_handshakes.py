"""Real handshakes on real sockets."""

from __future__ import annotations

import asyncio
import shutil
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from http_stage import listen
from slabwire.actors.ingress.http import listening, tls
from slabwire.actors.ingress.http.listening import open_listeners
from slabwire.actors.ingress.http.tls import StdlibTerminator, authority
from slabwire.actors.ingress.tls.certificate import Certificate, CertificateError, development_certificate
from slabwire.runtime.errors import StartError


@pytest.fixture
def certificate(tmp_path: Path) -> Certificate:
    return development_certificate("localhost", tmp_path / "tls")


class Shout(asyncio.Protocol):
    """Answers in capitals."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data.upper())


class Door:
    """One listener, and what became of the connections that came in."""

    def __init__(self, terminator: StdlibTerminator) -> None:
        self.listener = listen("tcp://127.0.0.1:0")
        self.address: tuple[str, int] = self.listener.getsockname()
        self.terminator = terminator
        self.protocols: list[Shout] = []

    def _shout(self) -> Shout:
        self.protocols.append(Shout())
        return self.protocols[-1]

    async def secure_next(self) -> None:
        connection, _ = await asyncio.get_running_loop().sock_accept(self.listener)
        await self.terminator.secure(connection, self._shout)


@asynccontextmanager
async def opened(certificate: Certificate) -> AsyncIterator[Door]:
    door = Door(StdlibTerminator(certificate))
    try:
        yield door
    finally:
        door.listener.close()
        for each in door.protocols:
            if hasattr(each, "transport"):
                each.transport.abort()
        await asyncio.sleep(0)


def client_context(certificate: Certificate, **options: Any) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=certificate.public)
    for name, value in options.items():
        setattr(context, name, value)
    return context


async def connect(door: Door, context: ssl.SSLContext) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection(*door.address, ssl=context, server_hostname="localhost")


async def leave(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()
    await asyncio.sleep(0)


def run(scene: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(scene())


def test_a_client_that_trusts_the_certificate_talks_tls_1_3(certificate: Certificate) -> None:
    async def scene() -> None:
        async with opened(certificate) as door:
            securing = asyncio.create_task(door.secure_next())
            context = client_context(certificate)
            context.set_alpn_protocols(["h2", "http/1.1"])
            reader, writer = await connect(door, context)
            await securing
            secured = writer.get_extra_info("ssl_object")
            writer.write(b"hello")
            assert await reader.readexactly(5) == b"HELLO"
            assert (secured.version(), secured.selected_alpn_protocol()) == ("TLSv1.3", "http/1.1")
            assert secured.compression() is None
            assert door.protocols[0].transport.get_extra_info("sslcontext")
            await leave(writer)

    run(scene)


def test_a_client_that_does_not_trust_it_does_not_connect(certificate: Certificate) -> None:
    async def scene() -> None:
        async with opened(certificate) as door:
            securing = asyncio.create_task(door.secure_next())
            with pytest.raises(ssl.SSLCertVerificationError):
                await connect(door, ssl.create_default_context())
            await asyncio.gather(securing, return_exceptions=True)

    run(scene)


def test_tls_1_2_is_refused(certificate: Certificate) -> None:
    async def scene() -> None:
        async with opened(certificate) as door:
            securing = asyncio.create_task(door.secure_next())
            with pytest.raises((ssl.SSLError, ConnectionResetError)):  # asyncio closes before the alert has left
                await connect(door, client_context(certificate, maximum_version=ssl.TLSVersion.TLSv1_2))
            with pytest.raises(ssl.SSLError, match="UNSUPPORTED_PROTOCOL"):
                await securing

    run(scene)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the openssl command")
@pytest.mark.parametrize(("version", "agreed"), [("-tls1_3", b"New, TLSv1.3"), ("-tls1_2", b"New, (NONE)")])
def test_openssl_agrees(certificate: Certificate, version: str, agreed: bytes) -> None:
    async def scene() -> None:
        async with opened(certificate) as door:
            securing = asyncio.create_task(door.secure_next())
            trust = ["-CAfile", str(certificate.public), "-verify_return_error", "-verify_hostname", "localhost"]
            place = ["-connect", authority(*door.address), "-servername", "localhost", "-alpn", "http/1.1"]
            client = await asyncio.create_subprocess_exec(
                "openssl",
                *["s_client", *place, *trust, version],
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
            )
            said, _ = await client.communicate()
            assert agreed in said
            assert (b"ALPN protocol: http/1.1" in said) == (version == "-tls1_3")
            await asyncio.gather(securing, return_exceptions=True)

    run(scene)


def test_small_answers_leave_at_once(certificate: Certificate) -> None:
    async def scene() -> None:
        async with opened(certificate) as door:
            securing = asyncio.create_task(door.secure_next())
            _, writer = await connect(door, client_context(certificate))
            await securing
            accepted = door.protocols[0].transport.get_extra_info("socket")
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            await leave(writer)

    run(scene)


def test_what_is_no_tls_is_closed(certificate: Certificate) -> None:
    async def scene() -> None:
        async with opened(certificate) as door:
            securing = asyncio.create_task(door.secure_next())
            reader, writer = await asyncio.open_connection(*door.address)
            writer.write(b"GET / HTTP/1.1\r\n\r\n")
            with pytest.raises(ssl.SSLError):
                await securing
            assert b"HTTP" not in await reader.read()
            await leave(writer)

    run(scene)


def test_a_handshake_has_its_time(certificate: Certificate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tls, "HANDSHAKE_TIMEOUT_S", 0.02)

    async def scene() -> None:
        async with opened(certificate) as door:
            securing = asyncio.create_task(door.secure_next())
            reader, writer = await asyncio.open_connection(*door.address)
            with pytest.raises(ConnectionAbortedError):
                await securing
            assert await reader.read() == b""
            await leave(writer)

    run(scene)


def test_a_cancelled_handshake_closes_the_connection(certificate: Certificate) -> None:
    async def scene() -> None:
        async with opened(certificate) as door:
            securing = asyncio.create_task(door.secure_next())
            reader, writer = await asyncio.open_connection(*door.address)
            while not door.protocols:
                await asyncio.sleep(0)
            securing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await securing
            assert await reader.read() == b""
            await leave(writer)

    run(scene)


def test_a_certificate_that_openssl_does_not_take_is_named(certificate: Certificate) -> None:
    other = development_certificate("other", certificate.chain.parent)
    with pytest.raises(
        CertificateError, match=r"does not take the certificate .*localhost\.key\.pem with the key .*other"
    ):
        StdlibTerminator(replace(certificate, key=other.key))


def test_the_terminator_describes_itself(certificate: Certificate) -> None:
    told = StdlibTerminator(certificate).describe()
    assert told["minimum"] == "TLSv1.3"
    assert told["certificate"] == str(certificate.public)
    assert told["not_after"] == certificate.not_after.isoformat()


# -- sockets ----------------------------------------------------------------------------------------------------------


def _has_ipv6() -> bool:
    try:
        listen("tcp://[::1]:0").close()
    except StartError:
        return False
    return True


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "::", "0.0.0.0"])
def test_listeners_listen_where_they_are_told(host: str) -> None:
    if ":" in host and not _has_ipv6():
        pytest.skip("this machine has no IPv6")
    listeners = open_listeners(host, 0, listen)
    ports = {each.getsockname()[1] for each in listeners}
    assert len(ports) == 1
    for each in listeners:
        assert each.proto == socket.IPPROTO_TCP
        assert not each.getblocking()
    with socket.create_connection((host, ports.pop())):
        pass
    for each in listeners:
        each.close()


def test_a_name_listens_at_each_of_its_addresses_that_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [(socket.AF_INET, each) for each in ("127.0.0.1", "192.0.2.1", "127.0.0.2")]
    monkeypatch.setattr(listening, "_addresses", lambda *_: found)
    listeners = open_listeners("name", 0, listen)
    addresses, ports = zip(*(each.getsockname() for each in listeners), strict=True)
    for each in listeners:
        each.close()
    assert addresses == ("127.0.0.1", "127.0.0.2")
    assert len(set(ports)) == 1


def test_an_address_in_use_is_named_with_the_remedy() -> None:
    (first,) = open_listeners("127.0.0.1", 0, listen)
    port = first.getsockname()[1]
    with pytest.raises(
        StartError, match=rf"127\.0\.0\.1:{port}: the address is in use; .*sport = :{port}.*another port"
    ):
        open_listeners("127.0.0.1", port, listen)
    first.close()


def test_a_successor_takes_the_address_though_connections_linger() -> None:
    (first,) = open_listeners("127.0.0.1", 0, listen)
    address = first.getsockname()
    client = socket.create_connection(address)
    accepted, _ = first.accept()
    accepted.close()  # the side that closes first keeps the address in TIME_WAIT
    client.close()
    first.close()
    second = listen(f"tcp://{authority(*address)}")
    assert second.getsockname() == address
    second.close()


def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(StartError, match=r"192\.0\.2\.1:0: Cannot assign requested address"):
        open_listeners("192.0.2.1", 0, listen)


def test_a_host_that_nobody_knows_is_refused() -> None:
    with pytest.raises(StartError, match=r"no\.such\.host\.invalid:1: the host is unknown"):
        open_listeners("no.such.host.invalid", 1, listen)
