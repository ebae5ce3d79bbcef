"""Clients that leave, stall, or say nothing: they hold up nobody, and their requests hear of it."""

from __future__ import annotations

import asyncio
import socket
import ssl
from typing import Any

import pytest

from http_stage import (
    GET,
    POST,
    Holds,
    Streams,
    echo,
    run,
    serving,
    until,
)
from slabwire.actors.ingress.certificates.certificate import Certificate
from slabwire.actors.ingress.certificates.development import development_certificate
from slabwire.actors.ingress.http import connection as module
from slabwire.actors.ingress.http import flow as flow_module
from slabwire.actors.ingress.http import server as server_module


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return development_certificate("localhost", tmp_path_factory.mktemp("state") / "tls")


def test_a_request_hears_that_its_client_has_left(certificate: Certificate) -> None:
    async def scene() -> None:
        app = Streams()
        async with serving(app, certificate) as served:
            client = await served.connect()
            client.say(GET % b"a")
            await client.head()
            await client.leave()
            await until(lambda: app.left == ["/a"])

    run(scene)


def test_so_does_one_behind_which_others_wait_and_they_never_begin(certificate: Certificate) -> None:
    async def scene() -> None:
        app = Streams()
        async with serving(app, certificate) as served:
            client = await served.connect()
            client.say(GET % b"a", GET % b"b", GET % b"c")
            await client.head()
            await client.leave()
            await until(lambda: app.left == ["/a"])
            await until(lambda: not served.server.state.tasks)
            assert app.begun == ["/a"]

    run(scene)


@pytest.mark.parametrize("said", [b"", b"\r\n\r\n"])
def test_a_connection_on_which_nothing_is_asked_is_closed(
    certificate: Certificate, monkeypatch: pytest.MonkeyPatch, said: bytes
) -> None:
    monkeypatch.setattr(module, "HEAD_WITHIN_S", 0.02)

    async def scene() -> None:
        async with serving(echo, certificate) as served:
            client = await served.connect()
            client.say(said)
            assert await client.ended()

    run(scene)


def test_empty_lines_do_not_keep_an_idle_connection_open(
    certificate: Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "HEAD_WITHIN_S", 0.02)

    async def scene() -> None:
        async with serving(echo, certificate) as served:
            client = await served.connect()
            client.say(GET % b"")
            await client.answer()
            client.say(b"\r\n")
            assert await client.ended()

    run(scene)


def test_a_head_has_its_time_however_steadily_it_trickles(
    certificate: Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "HEAD_WITHIN_S", 0.05)

    async def scene() -> None:
        async with serving(echo, certificate) as served:
            client = await served.connect()
            client.say(GET % b"first")
            await client.answer()
            client.say(b"GET / HTTP/1.1\r\n")
            refusal = asyncio.create_task(client.refusal())
            while not refusal.done():
                client.say(b"x: y\r\n")
                await asyncio.sleep(0.01)
            assert (await refusal)[0] == 408

    run(scene)


def test_half_a_head_behind_a_request_has_its_time_from_the_answer_on(
    certificate: Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "HEAD_WITHIN_S", 0.05)

    async def scene() -> None:
        async with serving(echo, certificate) as served:
            client = await served.connect()
            client.say(GET % b"first", b"GET / HTTP/1.1\r\n")
            assert await client.answer() == b"/first 0"
            assert (await client.refusal())[0] == 408

    run(scene)


@pytest.mark.parametrize(("version", "first"), [(b"1.1", b"HTTP/1.1 100 "), (b"1.0", b"HTTP/1.1 200 ")])
def test_who_waits_for_the_word_to_go_on_gets_it_unless_its_http_knows_none(
    certificate: Certificate, version: bytes, first: bytes
) -> None:
    async def scene() -> None:
        async with serving(echo, certificate) as served:
            client = await served.connect()
            client.say(b"POST / HTTP/%b\r\nhost: here\r\nexpect: 100-Continue\r\ncontent-length: 3\r\n\r\n" % version)
            if version == b"1.0":
                client.say(b"abc")
            head = await client.head()
            assert head.startswith(first)
            if version == b"1.1":
                client.say(b"abc")
                assert (await client.head()).startswith(b"HTTP/1.1 200 ")
            assert await client.reader.readexactly(3) == b"/ 3"

    run(scene)


def test_a_body_has_its_time_and_the_application_hears_of_it(
    certificate: Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BODY_WITHIN_S", 0.02)
    monkeypatch.setattr(module, "HEAD_WITHIN_S", 0.01)
    heard: list[str] = []

    async def reads(scope: Any, receive: Any, send: Any) -> None:
        while (message := await receive())["type"] == "http.request":
            assert message["more_body"]
        heard.append(message["type"])

    async def scene() -> None:
        async with serving(reads, certificate) as served:
            client = await served.connect()
            client.say(POST % 10, b"12345")
            assert (await client.refusal())[0] == 408
            await until(lambda: heard == ["http.disconnect"])

    run(scene)


def test_a_client_is_not_blamed_for_an_application_that_does_not_read(
    certificate: Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BODY_WITHIN_S", 0.01)

    async def scene() -> None:
        app = Holds()
        async with serving(app, certificate) as served:
            client = await served.connect()
            client.say(POST % (4 << 20), bytes(4 << 20))
            await asyncio.sleep(0.1)
            monkeypatch.setattr(module, "BODY_WITHIN_S", 60.0)
            await asyncio.sleep(0.1)  # by then a timer of the new length has followed the last short one
            app.go.set()
            assert await client.answer() == b"/ %d" % (4 << 20)

    run(scene)


def test_a_reader_that_takes_nothing_is_cut_off(certificate: Certificate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow_module, "READ_WITHIN_S", 0.02)
    heard: list[int] = []

    async def floods(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await receive()
        listening = asyncio.ensure_future(receive())
        while not listening.done():
            await send({"type": "http.response.body", "body": bytes(65536), "more_body": True})
            await asyncio.sleep(0)
        heard.append(1)

    async def scene() -> None:
        async with serving(floods, certificate) as served:
            client = await served.connect(limit=1024)  # its transport stops reading at twice as much
            client.say(GET % b"")
            await until(lambda: heard)

    run(scene)


def test_an_idle_connection_is_closed_in_the_end(certificate: Certificate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "KEEP_ALIVE_S", 0.02)

    async def scene() -> None:
        async with serving(echo, certificate) as served:
            client = await served.connect()
            client.say(GET % b"")
            await client.answer()
            assert await client.ended()

    run(scene)


def test_an_idle_client_that_does_not_answer_the_good_bye_holds_no_place(
    certificate: Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "KEEP_ALIVE_S", 0.02)
    monkeypatch.setattr(module, "GOODBYE_WITHIN_S", 0.01)

    async def scene() -> None:
        async with serving(echo, certificate) as served:
            client = await served.connect()
            client.say(GET % b"")
            await client.answer()
            transport: Any = client.writer.transport
            transport._ssl_protocol._transport.pause_reading()  # of the socket, below TLS
            await until(lambda: not served.server.state.connections)

    run(scene)


@pytest.mark.parametrize("goodbye_within_s", [0.0, 3600.0])
def test_the_end_is_told_in_tls_too(
    certificate: Certificate, monkeypatch: pytest.MonkeyPatch, goodbye_within_s: float
) -> None:
    monkeypatch.setattr(server_module, "KEEP_ALIVE_S", 0.02)
    monkeypatch.setattr(module, "GOODBYE_WITHIN_S", goodbye_within_s)

    def read_all(port: int, context: ssl.SSLContext) -> bytes:
        with (
            socket.create_connection(("127.0.0.1", port)) as plain,
            context.wrap_socket(plain, server_hostname="localhost", suppress_ragged_eofs=False) as client,
        ):
            client.sendall(GET % b"")
            return b"".join(iter(lambda: client.recv(1000), b""))  # an end without close_notify is an error here

    async def scene() -> None:
        async with serving(echo, certificate) as served:
            said = await asyncio.to_thread(read_all, served.server.port, served.context)
            assert said.endswith(b"/ 0")

    run(scene)
