"""Clients of other people, by libraries of other people: a full handshake, and one with the ticket of the first."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from http_stage import echo, listen
from slabwire.actors.ingress.certificates.certificate import Certificate
from slabwire.actors.ingress.certificates.development import development_certificate
from slabwire.actors.ingress.http.server import HttpServer
from slabwire.actors.ingress.tls.terminator import Minimum
from tls_stage import Notes, client_context, opened, plain_client, run, terminator_of

GET = b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
BODY = b"the answer"
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%b" % (len(BODY), BODY)
VERSIONS = ("TLSv1.3", "TLSv1.2")
# CURL_SSLVERSION_TLSv1_2 | CURL_SSLVERSION_MAX_TLSv1_2 of <curl/curl.h>.
CURL_TLS_1_2 = 6 | 6 << 16


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    folder: Path = tmp_path_factory.mktemp("state")
    return development_certificate("localhost", folder / "tls")


class Answers(Notes):
    """One request of HTTP/1.1, and notes what was agreed on."""

    agreed: tuple[str, bool, str | None]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        facts = transport.get_extra_info("ssl_object")
        self.agreed = facts.version(), facts.session_reused, facts.selected_alpn_protocol()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.data.endswith(b"\r\n\r\n"):
            self.transport.write(ANSWER)
            self.transport.close()


# -- the clients ------------------------------------------------------------------------------------------------------


class Place:
    """Where the server is, and what its client may use. What a client does here blocks, and is done in a thread."""

    def __init__(self, port: int, certificate: Certificate, version: str, folder: Path) -> None:
        self.port, self.version, self.folder = port, version, folder
        self.trust = str(certificate.public)

    @property
    def is_1_3(self) -> bool:
        return self.version == "TLSv1.3"

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port))


def said_by(*command: str, asked: bytes = b"") -> bytes:
    return subprocess.run(command, input=asked, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False).stdout


def openssl(place: Place) -> None:
    session = str(place.folder / "session.pem")
    common = ["openssl", "s_client", "-connect", f"127.0.0.1:{place.port}", "-servername", "localhost", "-ign_eof"]
    common += ["-CAfile", place.trust, "-verify_return_error", "-alpn", "http/1.1"]
    common += ["-tls1_3" if place.is_1_3 else "-tls1_2"]
    said = said_by(*common, "-sess_out", session, asked=GET)
    assert BODY in said
    assert not place.is_1_3 or b"Max Early Data: 0" in said  # whoever has seen it could send it again
    assert b"Reused, " + place.version.encode() in said_by(*common, "-sess_in", session, asked=GET)


def gnutls(place: Place) -> None:
    """It connects, leaves, and comes again."""
    priority = f"NORMAL:-VERS-ALL:+VERS-{place.version.replace('v', '')}"
    common = ["gnutls-cli", "--x509cafile", place.trust, "--priority", priority, "--alpn", "http/1.1"]
    waits = ["--waitresumption"] if place.is_1_3 else []
    said = said_by(*common, "--resume", *waits, "-p", str(place.port), "localhost", asked=GET)
    assert b"*** This is a resumed session" in said
    assert BODY in said


def curl(place: Place) -> None:
    """Each answer closes its connection, so the second request needs one of its own."""
    url, number = f"https://localhost:{place.port}/", place.version.removeprefix("TLSv")
    options = ["-sS", "--cacert", place.trust, f"--tlsv{number}", "--tls-max", number, "--http1.1"]
    assert said_by("curl", *options, url, url) == 2 * BODY


def stdlib_alike(module: Any, place: Place) -> None:
    """The interface of Python's `ssl`, whoever has made it."""
    context = module.create_default_context(cafile=place.trust)
    context.minimum_version = context.maximum_version = getattr(module.TLSVersion, place.version.replace(".", "_"))
    context.set_alpn_protocols(["http/1.1"])
    session = None
    for _ in range(2):
        with context.wrap_socket(place.connect(), server_hostname="localhost", **session_option(session)) as client:
            client.sendall(GET)
            assert b"".join(iter(lambda client=client: client.recv(4096), b"")) == ANSWER  # type: ignore[misc]
            session = client.session


def session_option(session: Any) -> dict[str, Any]:
    return {} if session is None else {"session": session}


def python(place: Place) -> None:
    import ssl

    stdlib_alike(ssl, place)


def rustls(place: Place) -> None:
    import rtls

    stdlib_alike(rtls, place)


def tlslite(place: Place) -> None:
    from tlslite.api import HandshakeSettings, TLSConnection

    settings, session = HandshakeSettings(), None
    settings.minVersion = settings.maxVersion = (3, 4) if place.is_1_3 else (3, 3)
    for _ in range(2):
        client = TLSConnection(place.connect())
        client.handshakeClientCert(session=session, settings=settings, serverName="localhost", alpn=[b"http/1.1"])
        client.write(GET)
        assert bytes(client.read(None, len(ANSWER))) == ANSWER
        session = client.session
        client.close()


def boringssl(place: Place) -> None:
    """The hello of a browser: extensions in any order, some that nobody knows, compressed certificates."""
    from curl_cffi import CurlOpt, requests

    options = {} if place.is_1_3 else {CurlOpt.SSLVERSION: CURL_TLS_1_2}
    with requests.Session(verify=place.trust, impersonate="chrome", curl_options=options) as session:
        for _ in range(2):
            assert session.get(f"https://localhost:{place.port}/", http_version="v1").content == BODY


class Client(NamedTuple):
    """What it does, whether it is there, and what is missing otherwise; the versions in which it comes again."""

    talk: Callable[[Place], None]
    is_here: bool
    needed: str
    resumes: tuple[str, ...] = VERSIONS


CLIENTS = {
    "openssl": Client(openssl, shutil.which("openssl") is not None, "the openssl command"),
    "gnutls": Client(gnutls, shutil.which("gnutls-cli") is not None, "gnutls-cli (Debian: gnutls-bin)"),
    # With OpenSSL it asks for no ticket of TLS 1.2.
    "curl": Client(curl, shutil.which("curl") is not None, "curl", VERSIONS[:1]),
    "python": Client(python, True, ""),
    # It keeps no sessions.
    "rustls": Client(rustls, find_spec("rtls") is not None, "rtls (PyPI)", ()),
    "tlslite": Client(tlslite, find_spec("tlslite") is not None, "tlslite-ng (PyPI)"),
    "boringssl": Client(boringssl, find_spec("curl_cffi") is not None, "curl_cffi (PyPI, 40 MB)"),
}


@pytest.mark.filterwarnings("ignore:The asyncore module:DeprecationWarning")  # of tlslite-ng
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", CLIENTS)
def test_a_client_comes_again_with_its_ticket(
    certificate: Certificate, tmp_path: Path, name: str, version: str
) -> None:
    client = CLIENTS[name]
    if not client.is_here:
        pytest.skip(f"needs {client.needed}")

    async def scene() -> None:
        async with opened(terminator_of("libssl", certificate, minimum_of(version)), Answers) as door:
            serving = asyncio.create_task(door.secure_all())
            await asyncio.to_thread(client.talk, Place(door.address[1], certificate, version, tmp_path))
            agreed = [each.agreed for each in door.protocols if isinstance(each, Answers) and each.data]
            assert {each[0] for each in agreed} == {version}
            assert agreed[-1][1] == (version in client.resumes)
            assert {each[2] for each in agreed} <= {"http/1.1", None}
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)

    run(scene)


def minimum_of(version: str) -> Minimum:
    return "1.3" if version == "TLSv1.3" else "1.2"


@pytest.mark.skipif(shutil.which("h2load") is None, reason="needs h2load (Debian: nghttp2-client)")
def test_h2load_loses_no_request(certificate: Certificate) -> None:
    """Many connections at once, each with many requests."""

    async def scene() -> None:
        made = HttpServer(echo, terminator_of("libssl", certificate))
        made.start([listen("tcp://127.0.0.1:0")])
        url = f"https://127.0.0.1:{made.port}/"
        said = await asyncio.to_thread(said_by, "h2load", "--h1", "-n", "2000", "-c", "20", "-m", "1", url)
        assert b"TLSv1.3" in said
        assert b"2000 succeeded, 0 failed, 0 errored" in said
        await made.stop(1)

    run(scene)


class FromTheStart(Answers):
    """Answers before it is asked."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.transport.write(ANSWER)
        self.transport.close()


def test_a_client_that_hears_no_good_bye_sees_the_end_of_tcp(certificate: Certificate) -> None:
    """As rtls is one. It gives no good-bye either; the server waits for that, and not the client."""

    def ended(address: tuple[str, int]) -> bool:
        with plain_client(address, client_context(certificate)) as client:
            plain = socket.socket(fileno=os.dup(client.fileno()))
            with plain:
                while plain.recv(1 << 16):
                    continue
            return True

    async def scene() -> None:
        async with opened(terminator_of("libssl", certificate), FromTheStart) as door:
            asked = asyncio.create_task(asyncio.to_thread(ended, door.address))
            protocol = await door.secure_next()
            assert protocol is not None
            assert await asked
            await protocol.lost.wait()

    run(scene)
