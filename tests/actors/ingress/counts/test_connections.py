"""What is counted of handshakes, on real connections, by each engine of TLS."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
from typing import Any

import pytest

from http_stage import GET, echo, listen, run, until
from slabwire.actors.ingress.certificates.certificate import Certificate
from slabwire.actors.ingress.certificates.development import development_certificate
from slabwire.actors.ingress.counts.connections import Connections
from slabwire.actors.ingress.counts.sheet import Row, Sheet
from slabwire.actors.ingress.http.connection_limit import affordable
from slabwire.actors.ingress.http.server import HttpServer
from slabwire.actors.ingress.tls.outcome import FAILURES, GROUPS, Agreed, NotTLS, failure_of
from slabwire.actors.ingress.tls.secured import TLSError
from tls_stage import ENGINES, terminator_of


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return development_certificate("localhost", tmp_path_factory.mktemp("state") / "tls")


class Seen:
    """A server, what it counts, and clients that block, in threads."""

    def __init__(self, engine: str, certificate: Certificate) -> None:
        self.sheet = Sheet()
        counts = Connections(self.sheet)
        self.sheet.lie_in([0.0] * self.sheet.length)
        self.server = HttpServer(echo, terminator_of(engine, certificate), counts=counts)
        self.context = ssl.create_default_context(cafile=certificate.public)

    def count(self, name: str, *labels: str) -> float:
        families = self.sheet.families([Row(0, list(self.sheet.numbers), True)])
        return next(
            value
            for family in families
            for suffix, given, value in family.samples
            if family.name + suffix == f"slabwire_{name}" and tuple(given.values()) == labels
        )

    def ask(self, session: ssl.SSLSession | None = None, context: ssl.SSLContext | None = None) -> Any:
        """One request on a connection of its own; the session, to be resumed."""
        with socket.create_connection(("127.0.0.1", self.server.port)) as plain:
            wrapped = (context or self.context).wrap_socket(plain, server_hostname="localhost", session=session)
            with wrapped as connection:
                connection.sendall(GET % b"x")
                assert b"200 OK" in connection.recv(1000)
                return connection.session

    def say(self, data: bytes) -> None:
        with socket.create_connection(("127.0.0.1", self.server.port)) as plain:
            plain.sendall(data)
            if data:
                plain.recv(1000)


@pytest.mark.parametrize("engine", ENGINES)
def test_handshakes_by_kind_version_cipher_group_and_failure(
    certificate: Certificate, engine: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "slabwire")

    async def scene() -> None:
        seen = Seen(engine, certificate)
        seen.server.start([listen("tcp://127.0.0.1:0")])
        session = await asyncio.to_thread(seen.ask)
        await asyncio.to_thread(seen.ask, session)
        assert seen.count("tls_handshake_seconds_count", "full") == 1
        assert seen.count("tls_handshake_seconds_count", "resumed") == 1
        assert 0 < seen.count("tls_handshake_seconds_sum", "full") < 60
        assert seen.count("tls_versions_total", "TLSv1.3") == 2
        assert seen.count("tls_ciphers_total", "TLS_AES_256_GCM_SHA384") == 2
        group = "other" if engine == "stdlib" else "x25519"
        told = {each: seen.count("tls_groups_total", each) for each in (*GROUPS, "other")}
        assert told[group] + told["X25519MLKEM768"] == 2
        await asyncio.to_thread(seen.say, GET % b"")
        await asyncio.to_thread(seen.say, b"")
        with contextlib.suppress(ssl.SSLError):
            await asyncio.to_thread(seen.ask, None, ssl.create_default_context())  # which trusts nobody of ours
        old = ssl.create_default_context(cafile=certificate.public)
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        with contextlib.suppress(ssl.SSLError, ConnectionError):
            await asyncio.to_thread(seen.ask, None, old)
        for reason in ("plain_http", "left", "nothing_common"):
            await until(lambda reason=reason: seen.count("tls_handshakes_failed_total", reason) == 1)  # type: ignore[misc]
        # In TLS 1.3 a client objects when the server has done its part, so by then it may be open for libssl.
        assert sum(seen.count("tls_handshakes_failed_total", each) for each in FAILURES) <= 4
        await until(lambda: not seen.server.state.connections)
        await seen.server.stop(1)

    run(scene)
    first = caplog.messages[0]
    assert first.startswith("handshake kind=full version=TLSv1.3 cipher=TLS_AES_256_GCM_SHA384 group=")
    assert sum(each.startswith("handshake kind=") for each in caplog.messages) == 1
    assert any(each.startswith("handshake failed reason=plain_http error=") for each in caplog.messages)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (None, "cut"),
        (TimeoutError("late"), "timeout"),
        (NotTLS("http"), "plain_http"),
        (TLSError("unsupported protocol"), "nothing_common"),
        (TLSError("no shared cipher"), "nothing_common"),
        (TLSError("tlsv1 alert unknown ca"), "alert"),
        (ssl.SSLError(1, "[SSL: TLSV1_ALERT_UNKNOWN_CA] tlsv1 alert unknown ca (_ssl.c:1)"), "alert"),
        (TLSError("bad record type"), "tls"),
        (ConnectionResetError("gone"), "left"),
        (ConnectionAbortedError("left"), "left"),
    ],
)
def test_each_failure_has_a_name_of_a_closed_set(error: OSError | None, reason: str) -> None:
    assert failure_of(error) == reason
    assert reason in FAILURES


def test_what_clients_make_up_is_no_label() -> None:
    sheet = Sheet()
    counts = Connections(sheet)
    sheet.lie_in([0.0] * sheet.length)
    length = sheet.length
    counts.shook_hands(Agreed("TLSv9", "NEW_SUITE", "brainpool", False, 0.1))
    counts.resumption_refused("a reason that a later version has")
    assert len(sheet.numbers) == length
    shown = sheet.families([Row(0, sheet.numbers, True)])
    others = {each.name for each in shown for _, labels, value in each.samples if value and "other" in labels.values()}
    assert others == {
        "slabwire_tls_versions_total",
        "slabwire_tls_ciphers_total",
        "slabwire_tls_groups_total",
        "slabwire_tls_resumptions_refused_total",
    }


def test_no_more_connections_than_there_may_be_files(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("slabwire.actors.ingress.http.connection_limit.free_descriptors", lambda: 1000)
    assert affordable(100) == 100
    assert not caplog.messages
    assert affordable(4096) == 872
    assert "connections=4096 are more than this process may have open files for: it keeps 872" in caplog.messages[0]
    monkeypatch.setattr("slabwire.actors.ingress.http.connection_limit.free_descriptors", lambda: None)
    assert affordable(4096) == 4096
