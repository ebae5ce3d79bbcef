"""Real handshakes on real sockets, with the clients that there are."""

from __future__ import annotations

import asyncio
import shutil
import socket
import ssl
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from slabwire.actors.ingress.certificates.certificate import Certificate, CertificateError
from slabwire.actors.ingress.certificates.development import development_certificate
from slabwire.actors.ingress.tls import shared, terminator
from slabwire.actors.ingress.tls.context import choose_protocol
from slabwire.actors.ingress.tls.engine import terminator_for
from slabwire.actors.ingress.tls.libssl import libssl
from slabwire.actors.ingress.tls.outcome import Agreed
from slabwire.runtime.host.libssl import VARIABLE, LibsslMissing, open_libssl
from tls_stage import (
    ENGINES,
    Door,
    Notes,
    client_context,
    connect,
    leave,
    met,
    opened,
    plain_client,
    run,
    terminator_of,
)

needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the openssl command")


@pytest.fixture
def certificate(tmp_path: Path) -> Certificate:
    return development_certificate("localhost", tmp_path / "tls")


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def begun(*command: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )


async def said_by(*command: str, asked: bytes = b"") -> bytes:
    return (await (await begun(*command)).communicate(asked))[0]


def test_a_client_that_trusts_the_certificate_talks_tls_1_3(certificate: Certificate, engine: str) -> None:
    async def scene() -> None:
        async with opened(terminator_of(engine, certificate)) as door:
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
            facts = door.protocols[0].transport.get_extra_info("ssl_object")
            assert facts.selected_alpn_protocol() == "http/1.1"
            await leave(writer)

    run(scene)


def test_a_client_that_does_not_trust_it_does_not_connect(certificate: Certificate, engine: str) -> None:
    async def scene() -> None:
        async with opened(terminator_of(engine, certificate)) as door:
            securing = asyncio.create_task(door.secure_next())
            with pytest.raises(ssl.SSLCertVerificationError):
                await connect(door, ssl.create_default_context())
            await asyncio.gather(securing, return_exceptions=True)

    run(scene)


# -- versions, suites, groups -----------------------------------------------------------------------------------------


def test_tls_1_2_is_refused(certificate: Certificate, engine: str) -> None:
    async def scene() -> None:
        async with opened(terminator_of(engine, certificate)) as door:
            securing = asyncio.create_task(door.secure_next())
            with pytest.raises((ssl.SSLError, ConnectionResetError)):  # asyncio closes before the alert has left
                await connect(door, client_context(certificate, maximum_version=ssl.TLSVersion.TLSv1_2))
            with pytest.raises(OSError, match=r"(?i)unsupported.protocol"):
                await securing

    run(scene)


def test_tls_1_2_is_spoken_where_it_is_asked_for(certificate: Certificate, engine: str) -> None:
    async def scene() -> None:
        async with opened(terminator_of(engine, certificate, "1.2")) as door:
            assert door.terminator.describe()["minimum"] == "TLSv1.2"
            for version, agreed in ((ssl.TLSVersion.TLSv1_2, "TLSv1.2"), (ssl.TLSVersion.TLSv1_3, "TLSv1.3")):
                securing = asyncio.create_task(door.secure_next())
                reader, writer = await connect(door, client_context(certificate, maximum_version=version))
                await securing
                writer.write(b"hello")
                assert await reader.readexactly(5) == b"HELLO"
                assert writer.get_extra_info("ssl_object").version() == agreed
                await leave(writer)

    run(scene)


@pytest.mark.parametrize("suite", ["ECDHE-ECDSA-AES128-SHA", "ECDHE-ECDSA-AES128-SHA256"])
def test_suites_of_1_2_without_authenticated_encryption_are_refused(
    certificate: Certificate, engine: str, suite: str
) -> None:
    async def scene() -> None:
        async with opened(terminator_of(engine, certificate, "1.2")) as door:
            securing = asyncio.create_task(door.secure_next())
            context = client_context(certificate, maximum_version=ssl.TLSVersion.TLSv1_2)
            context.set_ciphers(suite)
            with pytest.raises(OSError):  # noqa: PT011
                await connect(door, context)
            with pytest.raises(OSError, match=r"(?i)no.shared.cipher"):
                await securing

    run(scene)


class Agrees(Notes):
    """Notes the group."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.events.append(transport.get_extra_info("ssl_object").group().lower())


@needs_openssl
@pytest.mark.parametrize(
    ("offered", "agreed"),
    [("P-256:P-384", "secp256r1"), ("X25519", "x25519"), ("P-384", "secp384r1"), ("P-521", None), ("ffdhe2048", None)],
)
def test_groups_are_those_that_are_named(certificate: Certificate, offered: str, agreed: str | None) -> None:
    async def scene() -> None:
        async with opened(terminator_of("libssl", certificate), Agrees) as door:
            securing = asyncio.create_task(door.secure_next())
            said = asyncio.create_task(said_by(*s_client(door, certificate), "-groups", offered))
            if agreed is None:
                with pytest.raises(OSError, match="no suitable key share"):
                    await securing
            else:
                protocol = await securing
                assert protocol is not None
                assert protocol.events[1] == agreed
            assert (b"Server Temp Key: " in await said) == (agreed is not None)

    run(scene)


def test_the_best_group_comes_first(certificate: Certificate) -> None:
    async def scene() -> None:
        made = terminator_of("libssl", certificate)
        assert made.describe()["groups"][-3:] == ["X25519", "P-256", "P-384"]
        async with met(made, certificate) as (protocol, _, _):
            assert protocol.transport.get_extra_info("ssl_object").group().lower() in ("x25519", "x25519mlkem768")

    run(scene)


# -- ALPN -------------------------------------------------------------------------------------------------------------


def test_the_form_of_what_is_offered() -> None:
    assert choose_protocol(b"\x02h2\x08http/1.1") == b"http/1.1"
    assert choose_protocol(b"\x02h2") is None
    assert choose_protocol(b"") is None


def test_where_there_is_no_common_protocol_an_alert_says_so(certificate: Certificate) -> None:
    async def scene() -> None:
        async with opened(terminator_of("libssl", certificate)) as door:
            securing = asyncio.create_task(door.secure_next())
            context = client_context(certificate)
            context.set_alpn_protocols(["h2", "spdy/1"])

            def meet() -> None:
                with pytest.raises(ssl.SSLError, match=r"(?i)no.application.protocol"):
                    plain_client(door.address, context)

            await asyncio.to_thread(meet)
            with pytest.raises(OSError, match="no application protocol"):
                await securing

    run(scene)


# -- tickets ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_ticket_is_taken_again(certificate: Certificate, engine: str, version: ssl.TLSVersion) -> None:
    context = client_context(certificate, maximum_version=version)

    def ask(address: tuple[str, int], session: ssl.SSLSession | None) -> tuple[bool, ssl.SSLSession]:
        with plain_client(address, context, session) as client:
            client.sendall(b"x")
            assert client.recv(1) == b"X"  # the ticket has come before
            return client.session_reused, client.session

    async def scene() -> None:
        async with opened(terminator_of(engine, certificate, "1.2")) as door:
            session: ssl.SSLSession | None = None
            for expected in (False, True, True):
                asked = asyncio.create_task(asyncio.to_thread(ask, door.address, session))
                await door.secure_next()
                assert isinstance(door.outcome, Agreed)
                assert door.outcome.is_resumed == expected
                reused, session = await asked
                assert reused == expected
                assert engine == "stdlib" or session.timeout == 7200

    run(scene)


# -- other clients ----------------------------------------------------------------------------------------------------


NUMBERED = b"".join(b"%05d " % number for number in range(9000))


class SaysAll(Notes):
    """Says what is numbered, in pieces of many lengths, and leaves."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        at = 0
        for nbytes in (1, 511, 512, 513, 2000, 4097, 16384, len(NUMBERED)):
            self.transport.write(NUMBERED[at : at + nbytes])
            at += nbytes
        self.transport.close()


@needs_openssl
@pytest.mark.parametrize("version", ["-tls1_3", "-tls1_2"])
@pytest.mark.parametrize("length", [512, 4096])
def test_a_client_that_takes_short_records_gets_each_byte_once(
    certificate: Certificate, version: str, length: int
) -> None:
    async def scene() -> None:
        async with opened(terminator_of("libssl", certificate, "1.2"), SaysAll) as door:
            securing = asyncio.create_task(door.secure_next())
            said = await said_by(*s_client(door, certificate), version, "-quiet", "-maxfraglen", str(length))
            await securing
            assert NUMBERED in said

    run(scene)


def s_client(door: Door, certificate: Certificate) -> list[str]:
    trust = ["-CAfile", str(certificate.public), "-verify_return_error", "-verify_hostname", "localhost"]
    return ["openssl", "s_client", "-connect", "{}:{}".format(*door.address), "-servername", "localhost", *trust]


@needs_openssl
@pytest.mark.parametrize(("version", "agreed"), [("-tls1_3", b"New, TLSv1.3"), ("-tls1_2", b"New, (NONE)")])
def test_openssl_agrees(certificate: Certificate, engine: str, version: str, agreed: bytes) -> None:
    async def scene() -> None:
        async with opened(terminator_of(engine, certificate)) as door:
            securing = asyncio.create_task(door.secure_next())
            said = await said_by(*s_client(door, certificate), "-alpn", "http/1.1", version)
            assert agreed in said
            assert (b"ALPN protocol: http/1.1" in said) == (version == "-tls1_3")
            await asyncio.gather(securing, return_exceptions=True)

    run(scene)


@needs_openssl
def test_a_client_cannot_ask_for_another_handshake(certificate: Certificate) -> None:
    """s_client begins a renegotiation of TLS 1.2 at an R of its own on a line."""

    async def scene() -> None:
        async with opened(terminator_of("libssl", certificate, "1.2"), Notes) as door:
            securing = asyncio.create_task(door.secure_next())
            said = asyncio.create_task(said_by(*s_client(door, certificate), "-tls1_2", asked=b"R\n"))
            assert await securing is not None
            assert b"no renegotiation" in await said
            await door.protocols[0].lost.wait()

    run(scene)


@needs_openssl
def test_a_client_may_change_its_keys(certificate: Certificate, monkeypatch: pytest.MonkeyPatch) -> None:
    """s_client does so at a K on a line of its own, and asks us to do so, too."""
    library, results = libssl(), list[int]()
    read = library.SSL_read

    def noted(*arguments: Any) -> int:
        results.append(read(*arguments))
        return results[-1]

    monkeypatch.setattr(library, "SSL_read", noted)

    async def scene() -> None:
        async with opened(terminator_of("libssl", certificate)) as door:
            securing = asyncio.create_task(door.secure_next())
            client = await begun(*s_client(door, certificate))
            assert client.stdin is not None
            assert await securing is not None
            for asked in (b"one\n", b"K\n", b"two\n"):
                seen = len(results)
                client.stdin.write(asked)
                while len(results) == seen:
                    await asyncio.sleep(0.001)
            assert door.protocols[0].data == b"one\ntwo\n"
            said = (await client.communicate(b""))[0]
            assert b"KEYUPDATE" in said
            assert b"TWO" in said
            await door.protocols[0].lost.wait()
            assert door.protocols[0].error is None

    run(scene)


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_curl_gets_its_answer(certificate: Certificate, engine: str) -> None:
    class Answers(Notes):
        def data_received(self, data: bytes) -> None:
            self.transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello")
            self.transport.close()

    async def scene() -> None:
        async with opened(terminator_of(engine, certificate), Answers) as door:
            securing = asyncio.create_task(door.secure_next())
            url = f"https://localhost:{door.address[1]}/"
            said = await said_by("curl", "-sS", "--cacert", str(certificate.public), url)
            assert said == b"hello"
            await securing

    run(scene)


@pytest.mark.skipif(shutil.which("gnutls-cli") is None, reason="needs gnutls-cli")
def test_gnutls_gets_its_answer(certificate: Certificate, engine: str) -> None:
    async def scene() -> None:
        async with opened(terminator_of(engine, certificate)) as door:
            securing = asyncio.create_task(door.secure_next())
            place = ["--x509cafile", str(certificate.public), "-p", str(door.address[1]), "localhost"]
            said = asyncio.create_task(said_by("gnutls-cli", *place, asked=b"hello\n"))
            assert await securing is not None
            said_text = await said
            assert b"Handshake was completed" in said_text
            assert b"(TLS1.3" in said_text

    run(scene)


# -- how they end -----------------------------------------------------------------------------------------------------


def test_what_is_no_tls_is_told_and_closed(certificate: Certificate, engine: str) -> None:
    async def scene() -> None:
        async with opened(terminator_of(engine, certificate)) as door:
            securing = asyncio.create_task(door.secure_next())
            reader, writer = await asyncio.open_connection(*door.address)
            writer.write(b"GET / HTTP/1.1\r\n\r\n")
            with pytest.raises(ConnectionError, match="does not speak TLS"):
                await securing
            assert (await reader.read()).startswith(b"HTTP/1.1 400 ")
            await leave(writer)

    run(scene)


@pytest.mark.parametrize("begun", [b"", b"\x16\x03\x01"])
def test_a_handshake_has_its_time(
    certificate: Certificate, engine: str, monkeypatch: pytest.MonkeyPatch, begun: bytes
) -> None:
    monkeypatch.setattr(terminator, "HANDSHAKE_TIMEOUT_S", 0.02)

    async def scene() -> None:
        async with opened(terminator_of(engine, certificate)) as door:
            securing = asyncio.create_task(door.secure_next())
            reader, writer = await asyncio.open_connection(*door.address)
            writer.write(begun)
            with pytest.raises((TimeoutError, ConnectionAbortedError)):
                await securing
            assert await reader.read() == b""
            await leave(writer)

    run(scene)


@pytest.mark.parametrize("begun", [b"", b"\x16\x03\x01"])
def test_a_cancelled_handshake_closes_the_connection(certificate: Certificate, engine: str, begun: bytes) -> None:
    async def scene() -> None:
        async with opened(terminator_of(engine, certificate)) as door:
            securing = asyncio.create_task(door.secure_next())
            reader, writer = await asyncio.open_connection(*door.address)
            writer.write(begun)
            await asyncio.sleep(0.02)
            securing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await securing
            assert await reader.read() == b""
            await leave(writer)

    run(scene)


def test_a_factory_that_raises_closes_the_connection(certificate: Certificate) -> None:
    def fails() -> Notes:
        raise ValueError("no protocol")

    async def scene() -> None:
        told: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context["exception"]))
        async with opened(terminator_of("libssl", certificate), fails) as door:
            securing = asyncio.create_task(door.secure_next())
            reader, writer = await connect(door, client_context(certificate))
            door.protocols.clear()
            assert await securing is None
            assert await reader.read() == b""
            assert "no protocol" in str(told[0])
            await leave(writer)

    run(scene)


def test_only_some_handshakes_go_on_in_one_turn(certificate: Certificate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared, "HANDSHAKE_STEPS_A_TURN", 2)

    async def scene() -> None:
        async with opened(terminator_of("libssl", certificate), Notes) as door:
            steps: list[int] = []
            library, loop, turn = libssl(), asyncio.get_running_loop(), 0
            shake = library.SSL_do_handshake

            def noted(ssl_: int) -> int:
                steps.append(turn)
                return int(shake(ssl_))

            def count() -> None:
                nonlocal turn
                turn += 1
                loop.call_soon(count)

            monkeypatch.setattr(library, "SSL_do_handshake", noted)
            count()
            shaking = [asyncio.create_task(door.secure_next()) for _ in range(8)]
            plains = [socket.create_connection(door.address) for _ in range(8)]
            for _ in range(8):
                await asyncio.sleep(0)  # all are accepted
            for plain in plains:
                plain.sendall(b"\x16\x03\x01\x00\x05\x01\x00\x01\x00\x03")  # a hello begins
            while len(steps) < 8:
                await asyncio.sleep(0.001)
            assert max(map(steps.count, steps)) <= 2
            for plain in plains:
                plain.close()
            await asyncio.gather(*shaking, return_exceptions=True)

    run(scene)


# -- which engine -----------------------------------------------------------------------------------------------------


def test_a_certificate_that_openssl_does_not_take_is_named(certificate: Certificate, engine: str) -> None:
    other = development_certificate("other", certificate.chain.parent)
    for spoilt in ({"key_der": other.key_der}, {"key_der": b"x"}, {"chain_der": (b"x",)}):
        with pytest.raises(CertificateError, match=r"does not take the certificate .*localhost\.key\.pem with the key"):
            terminator_of(engine, replace(certificate, **spoilt))


def test_a_terminator_describes_itself(certificate: Certificate, engine: str) -> None:
    told = terminator_of(engine, certificate).describe()
    assert told["engine"] == engine
    assert "SSL" in told["library"]
    assert told["minimum"] == "TLSv1.3"
    assert told["alpn"] == ["http/1.1"]
    assert told["certificate"] == str(certificate.public)
    assert told["not_after"] == certificate.not_after.isoformat()


@pytest.mark.parametrize(
    ("named", "cause"), [("stdlib", "asks for none"), ("libc.so.6", "is no OpenSSL"), ("x.so", "x.so")]
)
def test_without_libssl_the_other_engine_is_taken_and_that_is_logged(
    certificate: Certificate,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    named: str,
    cause: str,
) -> None:
    monkeypatch.setenv(VARIABLE, named)
    libssl.cache_clear()
    try:
        assert terminator_for([certificate]).describe()["engine"] == "stdlib"
        with pytest.raises(LibsslMissing, match=cause):
            open_libssl()
    finally:
        libssl.cache_clear()
    assert cause in caplog.text
    assert "264 KiB" in caplog.text


def test_libssl_is_taken_where_it_is(certificate: Certificate, caplog: pytest.LogCaptureFixture) -> None:
    assert terminator_for([certificate]).describe()["engine"] == "libssl"
    assert not caplog.messages
