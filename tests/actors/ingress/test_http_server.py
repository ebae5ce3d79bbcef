"""The server of HTTP/1.1 over TLS: what it answers, and how it ends."""

from __future__ import annotations

import asyncio
import time
from email.utils import parsedate_to_datetime
from typing import Any

import pytest

from http_stage import (
    GET,
    POST,
    Holds,
    Streams,
    echo,
    listen,
    run,
    send_answer,
    serving,
    until,
)
from slabwire.actors.ingress.certificates.certificate import Certificate
from slabwire.actors.ingress.certificates.development import development_certificate
from slabwire.actors.ingress.http import connection as module
from slabwire.actors.ingress.http import server as server_module
from slabwire.actors.ingress.http.request_head import MOST_PIPELINED
from slabwire.actors.ingress.http.server import HttpServer
from slabwire.actors.ingress.http.state import State
from slabwire.actors.ingress.tls.engine import terminator_for
from slabwire.runtime.errors import StartError


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return development_certificate("localhost", tmp_path_factory.mktemp("state") / "tls")


def test_a_connection_serves_many_requests_and_each_answer_has_a_date(certificate: Certificate) -> None:
    async def scene() -> None:
        async with serving(echo, certificate) as served:
            client = await served.connect()
            for path in (b"a", b"b"):
                client.say(GET % path)
                head = await client.head()
                (date,) = [line for line in head.decode().split("\r\n") if line.startswith("date: ")]
                assert abs(parsedate_to_datetime(date[6:]).timestamp() - time.time()) < 60
                assert b"server:" not in head
                assert await client.reader.readexactly(4) == b"/%s 0" % path
            assert served.server.stats()["requests"] == 2

    run(scene)


def test_the_application_is_told_that_it_is_https(certificate: Certificate) -> None:
    seen: list[Any] = []

    async def notes(scope: Any, receive: Any, send: Any) -> None:
        seen.append((scope["scheme"], scope["server"], scope["client"][0], scope["http_version"]))
        await echo(scope, receive, send)

    async def scene() -> None:
        async with serving(notes, certificate) as served:
            client = await served.connect()
            client.say(GET % b"")
            await client.answer()
            assert seen == [("https", ("127.0.0.1", served.server.port), "127.0.0.1", "1.1")]

    run(scene)


def test_the_date_follows_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    state, seen = State(), []
    for now in (1e9, 1e9 + 0.5, 1e9 + 1):
        monkeypatch.setattr("time.time", lambda now=now: now)
        seen.append(state.date_line())
    first, then = (b"date: Sun, 09 Sep 2001 01:46:4%d GMT\r\n" % second for second in range(2))
    assert seen == [first, first, then]


def test_pipelined_requests_are_answered_in_order(certificate: Certificate) -> None:
    async def scene() -> None:
        async with serving(echo, certificate) as served:
            client = await served.connect()
            client.say(*(GET % b"%d" % n for n in range(MOST_PIPELINED)))
            answers = [await client.answer() for _ in range(MOST_PIPELINED)]
            assert answers == [b"/%d 0" % n for n in range(MOST_PIPELINED)]

    run(scene)


def test_more_than_may_be_pipelined_are_refused_after_the_answers_to_the_others(certificate: Certificate) -> None:
    async def scene() -> None:
        app = Holds()
        async with serving(app, certificate) as served:
            client = await served.connect()
            client.say(*(GET % b"%d" % n for n in range(MOST_PIPELINED + 2)))
            await until(lambda: served.server.stats()["refused"])
            app.go.set()
            for n in range(MOST_PIPELINED + 1):
                assert await client.answer() == b"/%d 0" % n
            assert (await client.refusal())[0] == 429

    run(scene)


def test_a_large_body_comes_in_whole(certificate: Certificate) -> None:
    async def scene() -> None:
        app = Holds()
        async with serving(app, certificate) as served:
            client = await served.connect()
            client.say(POST % (4 << 20), bytes(4 << 20))
            await until(lambda: app.begun)
            app.go.set()
            assert await client.answer() == b"/ %d" % (4 << 20)

    run(scene)


async def early(scope: Any, receive: Any, send: Any) -> None:
    """Answers without a look at the body."""
    await send_answer(send, b"too large")


def test_an_early_answer_ends_the_connection_once_the_body_has_come(certificate: Certificate) -> None:
    async def scene() -> None:
        async with serving(early, certificate) as served:
            client = await served.connect()
            client.say(POST % (1 << 20), bytes(1000))
            assert b"connection: close" in await client.head()
            assert await client.reader.readexactly(9) == b"too large"
            await asyncio.sleep(0.05)
            assert not client.reader.at_eof()  # which would reset the connection of a client that still sends
            client.say(bytes((1 << 20) - 1000), GET % b"")
            assert await client.ended()
            assert served.server.stats()["requests"] == 1

    run(scene)


def test_an_early_answer_ends_it_in_any_case(certificate: Certificate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LINGER_S", 0.02)

    async def scene() -> None:
        async with serving(early, certificate) as served:
            client = await served.connect()
            client.say(POST % 10, b"12345")
            assert await client.answer() == b"too large"
            assert await client.ended()

    run(scene)


def test_to_http_1_0_nothing_is_chunked(certificate: Certificate) -> None:
    async def pieces(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for body, more in ((b"one ", True), (b"", True), (b"two", True), (b"", False)):
            await send({"type": "http.response.body", "body": body, "more_body": more})

    async def scene() -> None:
        async with serving(pieces, certificate) as served:
            client = await served.connect()
            client.say(b"GET / HTTP/1.0\r\nconnection: keep-alive\r\n\r\n")
            head, _, body = (await client.reader.read()).partition(b"\r\n\r\n")
            assert b"transfer-encoding" not in head
            assert b"connection: close" in head
            assert body == b"one two"

    run(scene)


def test_an_error_of_the_application_is_an_answer(certificate: Certificate) -> None:
    async def fails(scope: Any, receive: Any, send: Any) -> None:
        raise RuntimeError("broken")

    async def scene() -> None:
        async with serving(fails, certificate) as served:
            client = await served.connect()
            client.say(GET % b"")
            assert (await client.reader.read()).startswith(b"HTTP/1.1 500 ")

    run(scene)


# -- the end ----------------------------------------------------------------------------------------------------------


def test_a_stop_lets_requests_in_flight_end_and_takes_no_more(certificate: Certificate) -> None:
    async def scene() -> None:
        app = Holds()
        async with serving(app, certificate) as served:
            idle, busy = await served.connect(), await served.connect()
            busy.say(GET % b"a", GET % b"b")
            await until(lambda: app.begun == 1)
            stopping = asyncio.create_task(served.server.stop(10))
            assert await idle.ended()
            with pytest.raises(ConnectionRefusedError):
                await served.connect()
            assert not stopping.done()
            app.go.set()
            assert [await busy.answer(), await busy.answer()] == [b"/a 0", b"/b 0"]
            assert await busy.ended()
            await stopping

    run(scene)


def test_after_its_grace_a_stop_cuts(certificate: Certificate) -> None:
    async def scene() -> None:
        app = Streams()
        async with serving(app, certificate) as served:
            client = await served.connect()
            client.say(GET % b"a")
            await client.head()
            await served.server.stop(0.01)
            assert app.left == ["/a"]
            assert await client.reader.read() == b"1\r\nx\r\n"

    run(scene)


def test_a_request_that_does_not_heed_the_cut_is_cancelled(
    certificate: Certificate, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(server_module, "CUT_WITHIN_S", 0.01)

    async def scene() -> None:
        app = Holds()
        async with serving(app, certificate) as served:
            client = await served.connect()
            client.say(GET % b"")
            await until(lambda: app.begun)
            await served.server.stop(0)
            assert served.server.stats()["running"] == 0
            assert "1 requests were cut off" in caplog.messages

    run(scene)


def test_a_stop_ends_handshakes_in_progress(certificate: Certificate) -> None:
    async def scene() -> None:
        async with serving(echo, certificate) as served:
            reader, writer = await asyncio.open_connection("127.0.0.1", served.server.port)
            await until(lambda: served.server.stats()["handshakes"] == 1)
            await served.server.stop(10)
            assert await reader.read() == b""
            writer.close()

    run(scene)


def test_an_idle_client_that_does_not_answer_holds_up_no_stop(
    certificate: Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "GOODBYE_WITHIN_S", 0.02)

    async def scene() -> None:
        async with serving(echo, certificate) as served:
            client = await served.connect()
            client.say(GET % b"")
            await client.answer()
            transport: Any = client.writer.transport
            transport._ssl_protocol._transport.pause_reading()
            await served.server.stop(3600)

    run(scene)


def test_a_successor_listens_at_the_same_place(certificate: Certificate) -> None:
    async def scene() -> None:
        async with serving(echo, certificate) as served:
            client, port = await served.connect(), served.server.port
            client.say(GET % b"")
            await client.answer()
            with pytest.raises(StartError, match="the address is in use"):
                listen(f"tcp://127.0.0.1:{port}")
            await served.server.stop(10)
            successor = HttpServer(echo, terminator_for([certificate]))
            successor.start([listen(f"tcp://127.0.0.1:{port}")])
            await successor.stop(0)

    run(scene)


def test_nothing_runs_while_nothing_comes(certificate: Certificate) -> None:
    async def scene() -> None:
        async with serving(echo, certificate) as served:
            client = await served.connect()
            client.say(GET % b"")
            await client.answer()
            await until(lambda: not served.server.state.tasks)
            await asyncio.sleep(0.01)
            loop: Any = asyncio.get_running_loop()
            pending = [each for each in loop._scheduled if not each.cancelled()]
            assert len(pending) == 2  # the connection's end, and that of a handshake's time, which is not set again
            assert not loop._ready

    run(scene)
