"""What is no request, or one that HTTP/1.1 does not allow, is refused and harms no other."""

from __future__ import annotations

import asyncio
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


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return development_certificate("localhost", tmp_path_factory.mktemp("state") / "tls")


@pytest.mark.parametrize("pieces", [1, 400])
def test_a_head_that_is_too_large_is_refused(certificate: Certificate, pieces: int) -> None:
    async def scene() -> None:
        async with serving(echo, certificate) as served:
            client = await served.connect()
            refusal = asyncio.create_task(client.refusal())
            client.say(b"GET / HTTP/1.1\r\nhost: here\r\nx: ")
            for _ in range(pieces):
                client.say(b"x" * (40_000 // pieces))
                await asyncio.sleep(0)
            client.say(b"\r\n\r\n")
            assert await refusal == (
                431,
                "The request's head is larger than 32768 bytes, the most that this server takes.",
            )

    run(scene)


def test_a_head_that_never_ends_is_refused_before_it_does(certificate: Certificate) -> None:
    async def scene() -> None:
        async with serving(echo, certificate) as served:
            client = await served.connect()
            client.say(b"GET / HTTP/1.1\r\nx: ")
            refusal = asyncio.create_task(client.refusal())
            while not refusal.done():
                client.say(b"x" * 1000)
                await asyncio.sleep(0.001)
            assert (await refusal)[0] == 431

    run(scene)


def test_a_large_body_before_a_head_is_not_counted_as_its_part(certificate: Certificate) -> None:
    async def scene() -> None:
        async with serving(echo, certificate) as served:
            client = await served.connect()
            client.say(POST % 100_000, bytes(100_000), b"GET /next HTTP/1.1\r\n")
            assert await client.answer() == b"/ 100000"
            client.say(b"host: here\r\n\r\n")
            assert await client.answer() == b"/next 0"

    run(scene)


@pytest.mark.parametrize(
    "said", [b"nonsense\r\n\r\n", b"\x16\x03\x01\r\n", b"GET / HTTP/1.1\r\nbad\x00name: 1\r\n\r\n"]
)
def test_what_is_no_http_is_refused(certificate: Certificate, said: bytes) -> None:
    async def scene() -> None:
        async with serving(echo, certificate) as served:
            client = await served.connect()
            client.say(said)
            assert await client.refusal() == (400, "This is no valid HTTP/1.1 request.")

    run(scene)


@pytest.mark.parametrize(
    ("bad", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nx: " + b"x" * 300_000, 431),
        (POST.replace(b"content-length: %d", b"transfer-encoding: chunked") + b"nonsense\r\n", 400),
    ],
)
def test_what_is_wrong_behind_a_request_is_refused_after_its_answer(
    certificate: Certificate, bad: bytes, status: int
) -> None:
    async def scene() -> None:
        app = Holds()
        async with serving(app, certificate) as served:
            client = await served.connect()
            client.say(GET % b"a")
            await until(lambda: app.begun)
            client.say(bad)
            await until(lambda: served.server.stats()["refused"])
            client.say(GET % b"ignored")
            app.go.set()
            assert await client.answer() == b"/a 0"
            assert (await client.refusal())[0] == status
            assert app.begun == 1

    run(scene)


@pytest.mark.parametrize("body", [b"content-length: 36\r\n", b"transfer-encoding: chunked\r\n"])
@pytest.mark.parametrize("protocol", [b"h2c", b"websocket", b"foo"])
def test_no_body_behind_an_upgrade_is_taken_for_a_request(
    certificate: Certificate, protocol: bytes, body: bytes
) -> None:
    async def scene() -> None:
        async with serving(echo, certificate) as served:
            client = await served.connect()
            head = b"POST / HTTP/1.1\r\nhost: here\r\nconnection: upgrade\r\nupgrade: " + protocol + b"\r\n"
            client.say(head + body + b"\r\n")
            client.say(GET % b"smuggled")
            assert (await client.refusal())[0] == 501
            assert served.server.stats()["requests"] == 0

    run(scene)


def test_an_upgrade_without_a_body_is_ignored_and_so_is_all_behind_it(certificate: Certificate) -> None:
    async def scene() -> None:
        app = Holds()
        async with serving(app, certificate) as served:
            client = await served.connect()
            client.say(b"GET /a HTTP/1.1\r\nhost: here\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n", GET % b"b")
            await until(lambda: app.begun)
            client.say(b"nonsense\r\n\r\n")
            await asyncio.sleep(0.02)
            app.go.set()
            head, _, rest = (await client.reader.read()).partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200")
            assert b"connection: close" in head
            assert rest == b"/a 0"
            assert served.server.stats()["refused"] == 0

    run(scene)


@pytest.mark.parametrize(
    ("said", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n", 400),
        (b"GET / HTTP/1.0\r\nhost: a\r\nhost: b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nhost: a@b\r\n\r\n", 400),
        (b"GET /\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nhost: here\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
        (b"POST / HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (b"CONNECT here:443 HTTP/1.1\r\nhost: here\r\n\r\n", 501),
    ],
)
def test_a_head_that_rfc_9112_does_not_allow_is_refused(certificate: Certificate, said: bytes, status: int) -> None:
    async def scene() -> None:
        async with serving(echo, certificate) as served:
            client = await served.connect()
            client.say(said)
            assert (await client.refusal())[0] == status
            assert served.server.stats()["requests"] == 0

    run(scene)


def test_an_absolute_url_counts_more_than_the_host_header(certificate: Certificate) -> None:
    seen: list[Any] = []

    async def notes(scope: Any, receive: Any, send: Any) -> None:
        seen.append((scope["path"], [value for name, value in scope["headers"] if name == b"host"]))
        await echo(scope, receive, send)

    async def scene() -> None:
        async with serving(notes, certificate) as served:
            client = await served.connect()
            client.say(b"GET https://there:1/a HTTP/1.1\r\nhost: here\r\n\r\n")
            await client.answer()
            assert seen == [("/a", [b"there:1"])]

    run(scene)
