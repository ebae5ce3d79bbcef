"""How many connections there may be, and who makes room."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import ssl
from typing import Any

import pytest

from http_stage import (
    GET,
    POST,
    Holds,
    echo,
    run,
    serving,
    until,
)
from slabwire.actors.ingress.certificates.certificate import Certificate
from slabwire.actors.ingress.certificates.development import development_certificate
from slabwire.actors.ingress.http import connection as module
from slabwire.actors.ingress.http import connection_limit as room_module
from slabwire.actors.ingress.tls import shared
from slabwire.actors.ingress.tls.acceptor import accepted_by


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return development_certificate("localhost", tmp_path_factory.mktemp("state") / "tls")


def test_the_connection_that_was_idle_the_longest_makes_room(certificate: Certificate) -> None:
    async def scene() -> None:
        async with serving(echo, certificate, connections=2) as served:
            clients = [await served.connect() for _ in range(2)]
            for each in reversed(clients):
                each.say(GET % b"")
                await each.answer()
            newest = await served.connect()
            newest.say(GET % b"new")
            assert await newest.answer() == b"/new 0"
            assert await clients[1].ended()
            clients[0].say(GET % b"old")
            assert await clients[0].answer() == b"/old 0"

    run(scene)


def test_no_more_make_room_than_have_to(certificate: Certificate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GOODBYE_WITHIN_S", 3600.0)

    async def scene() -> None:
        app = Holds()
        async with serving(app, certificate, connections=3) as served:
            first, second, busy = [await served.connect() for _ in range(3)]
            transport: Any = first.writer.transport
            transport._ssl_protocol._transport.pause_reading()  # so that it does not answer our good-bye
            busy.say(GET % b"")
            await until(lambda: app.begun)
            newest = asyncio.create_task(served.connect())
            connections = served.server.state.connections
            await until(lambda: any(each.transport.is_closing() for each in connections))
            app.go.set()
            await busy.answer()
            await asyncio.sleep(0.02)
            await first.leave()
            await newest
            second.say(GET % b"")
            assert await second.answer() == b"/ 0"

    run(scene)


@pytest.mark.parametrize("leaves", [True, False])
def test_where_all_are_busy_new_ones_wait(certificate: Certificate, leaves: bool) -> None:
    async def scene() -> None:
        app = Holds()
        async with serving(app, certificate, connections=2) as served:
            clients = [await served.connect() for _ in range(2)]
            for each in clients:
                each.say(GET % b"")
            await until(lambda: app.begun == 2)
            late = asyncio.create_task(served.connect())
            await asyncio.sleep(0.05)
            assert not late.done()
            if leaves:
                await clients[0].leave()
                await late
            app.go.set()
            assert await clients[1].answer() == b"/ 0"
            await late  # for whom one that is idle now has made room

    run(scene)


@pytest.mark.parametrize("begun", [b"GET / HTTP/1.1\r\n", POST % 10, POST % 10 + b"12345"])
def test_where_none_is_idle_the_request_that_is_late_makes_room(
    certificate: Certificate, monkeypatch: pytest.MonkeyPatch, begun: bytes
) -> None:
    monkeypatch.setattr(room_module, "PATIENCE_S", 0.05)

    async def scene() -> None:
        app = Holds()
        async with serving(app, certificate, connections=3) as served:
            busy, late, later = [await served.connect() for _ in range(3)]
            busy.say(GET % b"")
            await until(lambda: app.begun == 1)
            app.go.set()
            assert await busy.answer() == b"/ 0"
            app.go.clear()
            busy.say(GET % b"")
            await until(lambda: app.begun == 2)
            for each in (late, later):
                each.say(begun)
                await asyncio.sleep(0.01)
            newest = await served.connect()
            status, message = await late.refusal()
            assert (status, "All connections are taken" in message) == (408, True)
            app.go.set()
            assert await busy.answer() == b"/ 0"
            newest.say(GET % b"new")
            assert await newest.answer() == b"/new 0"
            assert not later.reader.at_eof()

    run(scene)


@pytest.mark.parametrize(
    "said", [b"GET / HTTP/1.0\r\n\r\n", b"GET / HTTP/1.1\r\nhost: here\r\nconnection: close\r\n\r\n"]
)
def test_so_does_who_does_not_answer_our_good_bye(
    certificate: Certificate, monkeypatch: pytest.MonkeyPatch, said: bytes
) -> None:
    monkeypatch.setattr(room_module, "PATIENCE_S", 0.02)
    monkeypatch.setattr(shared, "CLOSE_WITHIN_S", 3600.0)

    async def scene() -> None:
        async with serving(echo, certificate, connections=2) as served:
            for rude in [await served.connect() for _ in range(2)]:
                rude.say(said)
                transport: Any = rude.writer.transport
                transport._ssl_protocol._transport.pause_reading()
            await until(lambda: served.server.stats()["requests"] == 2)
            client = await served.connect()
            client.say(GET % b"")
            assert await client.answer() == b"/ 0"

    run(scene)


def test_so_does_a_handshake_that_is_late(certificate: Certificate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room_module, "PATIENCE_S", 0.02)

    async def scene() -> None:
        async with serving(echo, certificate, connections=1) as served:
            reader, writer = await asyncio.open_connection("127.0.0.1", served.server.port)
            await until(lambda: served.server.stats()["handshakes"] == 1)
            client = await served.connect()
            client.say(GET % b"")
            assert await client.answer() == b"/ 0"
            assert await reader.read() == b""
            writer.close()

    run(scene)


def test_plain_http_is_told_to_ask_by_https(certificate: Certificate) -> None:
    async def scene() -> None:
        async with serving(echo, certificate) as served:
            reader, writer = await asyncio.open_connection("127.0.0.1", served.server.port)
            writer.write(GET % b"")
            head, _, body = (await reader.read()).partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 400 Bad Request\r\nconnection: close")
            assert body.startswith(b"This port speaks https")
            writer.close()
            await until(lambda: served.server.stats()["failed_handshakes"] == 1)

    run(scene)


def test_handshakes_that_fail_are_counted_and_give_their_place_back(certificate: Certificate) -> None:
    async def scene() -> None:
        async with serving(echo, certificate, connections=1) as served:
            for n in range(3):
                reader, writer = await asyncio.open_connection("127.0.0.1", served.server.port)
                writer.write(b"GET / HTTP/1.1\r\n\r\n")
                await reader.read()
                writer.close()
                await until(lambda n=n: served.server.stats()["failed_handshakes"] == n + 1)  # type: ignore[misc]
            client = await served.connect()
            client.say(GET % b"")
            assert await client.answer() == b"/ 0"
            assert served.server.stats()["handshakes"] == 0

    run(scene)


def test_an_accept_that_fails_is_tried_again(
    certificate: Certificate, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    failures: list[OSError] = [OSError(errno.EMFILE, "Too many open files"), ConnectionAbortedError()]

    def flaky(listener: socket.socket) -> socket.socket:
        if failures:
            raise failures.pop()
        return accepted_by(listener)

    monkeypatch.setattr("slabwire.actors.ingress.tls.acceptor.accepted_by", flaky)
    monkeypatch.setattr("slabwire.actors.ingress.tls.acceptor.ACCEPT_AGAIN_S", 0.01)

    async def scene() -> None:
        async with serving(echo, certificate) as served:
            client = await served.connect()
            client.say(GET % b"")
            assert await client.answer() == b"/ 0"
            assert caplog.messages == ["no connection can be accepted: Too many open files"]

    run(scene)


def test_a_flood_of_handshakes_does_not_hold_up_an_open_connection(certificate: Certificate) -> None:
    async def scene() -> None:
        async with serving(echo, certificate, connections=300) as served:
            client = await served.connect()
            turns = 0

            def count() -> None:
                nonlocal turns
                turns += 1
                counting[0] = loop.call_soon(count)

            loop = asyncio.get_running_loop()
            hello, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            with contextlib.suppress(ssl.SSLWantReadError):
                served.context.wrap_bio(hello, outgoing, server_hostname="localhost").do_handshake()
            said = outgoing.read()
            plains = [socket.create_connection(("127.0.0.1", served.server.port)) for _ in range(200)]
            await until(lambda: served.server.stats()["handshakes"] == 200)
            for plain in plains:
                plain.sendall(said)
            counting = [loop.call_soon(count)]
            client.say(GET % b"")
            assert await client.answer() == b"/ 0"
            assert turns < 50  # as many turns as 200 handshakes take, at four in each
            counting[0].cancel()
            for plain in plains:
                plain.close()

    run(scene)
