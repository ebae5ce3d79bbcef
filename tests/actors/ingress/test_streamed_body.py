"""Bodies that an application writes itself: framed as HTTP asks, bounded by a slow reader, ended by ASGI."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from http_stage import GET, run, serving, until
from scripted_chat import ACCEPTED, END, Ingress
from slabwire.actors.ingress.certificates.certificate import Certificate
from slabwire.actors.ingress.certificates.development import development_certificate
from slabwire.actors.ingress.requests.streamed_body import EXTENSION, StreamedBody

START = {"type": "http.response.start", "status": 200, "headers": []}


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        return development_certificate("127.0.0.1")


async def body_of(scope: Any, send: Any) -> StreamedBody:
    """After the head."""
    assert EXTENSION in scope["extensions"]
    got: list[StreamedBody] = []
    await send(START)
    await send({"type": EXTENSION, "use": got.append})
    return got[0]


async def two_parts(scope: Any, receive: Any, send: Any) -> None:
    body = await body_of(scope, send)
    for part in (b"one ", b"", b"two "):
        body.write(part)
    await send({"type": "http.response.body", "body": b"three"})
    body.write(b"too late")


def test_parts_are_chunks_and_the_connection_goes_on(certificate: Certificate) -> None:
    async def scene() -> None:
        async with serving(two_parts, certificate) as served:
            client = await served.connect()
            for _ in range(2):
                client.say(GET % b"")
                assert b"transfer-encoding: chunked" in await client.head()
                assert (
                    await client.reader.readuntil(b"0\r\n\r\n") == b"4\r\none \r\n4\r\ntwo \r\n5\r\nthree\r\n0\r\n\r\n"
                )

    run(scene)


def test_to_http_1_0_they_go_as_they_are(certificate: Certificate) -> None:
    async def scene() -> None:
        async with serving(two_parts, certificate) as served:
            client = await served.connect()
            client.say(b"GET / HTTP/1.0\r\nconnection: keep-alive\r\n\r\n")
            head, _, body = (await client.reader.read()).partition(b"\r\n\r\n")
            assert b"transfer-encoding" not in head
            assert body == b"one two three"

    run(scene)


def test_no_body_is_offered_to_a_request_for_a_head(certificate: Certificate) -> None:
    async def look(scope: Any, receive: Any, send: Any) -> None:
        assert EXTENSION not in scope.get("extensions", {})
        await send(START)
        await send({"type": "http.response.body", "body": b""})

    async def scene() -> None:
        async with serving(look, certificate) as served:
            client = await served.connect()
            client.say(b"HEAD / HTTP/1.1\r\nhost: here\r\n\r\n")
            assert (await client.head()).startswith(b"HTTP/1.1 200")

    run(scene)


def test_a_slow_reader_fills_it_and_makes_room_again(certificate: Certificate) -> None:
    part = b"x" * 8192
    wrote = 0

    async def flood(scope: Any, receive: Any, send: Any) -> None:
        nonlocal wrote
        body, room = await body_of(scope, send), asyncio.Event()
        body.on_room = room.set
        for _ in range(2):
            while not body.is_full:
                body.write(part)
                wrote += len(part)
            await room.wait()
            room.clear()
        await send({"type": "http.response.body", "body": b"end"})

    async def scene() -> None:
        async with serving(flood, certificate) as served:
            client = await served.connect(limit=1024)
            client.say(GET % b"")
            await client.head()
            data = b""
            while not data.endswith(b"3\r\nend\r\n0\r\n\r\n"):
                data += await client.reader.read(1 << 16)
            assert data.count(b"x") == wrote

    run(scene)


def test_to_a_client_that_has_left_nothing_is_written(
    certificate: Certificate, caplog: pytest.LogCaptureFixture
) -> None:
    left = asyncio.Event()

    async def go_on(scope: Any, receive: Any, send: Any) -> None:
        body = await body_of(scope, send)
        while (await receive())["type"] != "http.disconnect":
            pass
        for _ in range(100):  # of which asyncio's transport would warn
            body.write(b"gone")
        left.set()

    async def scene() -> None:
        async with serving(go_on, certificate) as served:
            client = await served.connect()
            client.say(GET % b"")
            await client.head()
            await client.leave()
            await left.wait()

    run(scene)
    assert not caplog.messages


class _Handed(StreamedBody):
    """A server's body that takes `most` bytes until it is full."""

    def __init__(self, most: int) -> None:
        self.on_room: Callable[[], None] | None = None
        self.data = b""
        self.most = most

    @property
    def is_full(self) -> bool:
        return len(self.data) > self.most

    def write(self, data: bytes) -> None:
        self.data += data


async def post(ingress: Ingress, body: _Handed | None) -> bytes:
    """What a streamed request gets by ASGI; `body` is the server's."""
    sent = b""

    async def receive() -> Any:
        if asked:
            await asyncio.Event().wait()
        asked.append(True)
        text = b'{"model":"smol","messages":[{"role":"user","content":"a"}],"stream":true}'
        return {"type": "http.request", "body": text, "more_body": False}

    async def send(message: Any) -> None:
        nonlocal sent
        if message["type"] == EXTENSION:
            message["use"](body)
        sent += message.get("body", b"")

    asked: list[bool] = []
    scope: dict[str, Any] = {
        "type": "http",
        "method": "POST",
        "path": "/v1/chat/completions",
        "query_string": b"",
        "headers": [],
    }
    scope |= {"extensions": {EXTENSION: {}}} if body is not None else {}
    await ingress.app(scope, receive, send)
    return sent


def test_an_answer_goes_past_asgi_but_for_its_end() -> None:
    async def scene() -> None:
        ingress, body = Ingress(), _Handed(1 << 20)
        by_asgi = await post(ingress, body)
        assert [each in body.data for each in (b'"assistant"', b'"Hi"', b'" you"', b'"stop"')] == [True] * 4
        assert by_asgi == b"data: [DONE]\n\n"
        assert b'slabwire_responses_streamed_total{way="direct"} 1.0' in (await ingress.get("/metrics")).body
        assert b'"Hi"' in await post(ingress, None)
        assert b'slabwire_responses_streamed_total{way="asgi"} 1.0' in (await ingress.get("/metrics")).body

    run(scene)


def test_a_full_body_pauses_the_stream_and_room_lets_it_go_on() -> None:
    pieces = 40

    async def scene() -> None:
        script = (ACCEPTED, *({"text": f"<{n}>", "tokens": 1} for n in range(pieces)), END)
        ingress, body = Ingress(script), _Handed(2000)
        request = asyncio.create_task(post(ingress, body))
        await until(lambda: body.is_full)
        for _ in range(20):
            await asyncio.sleep(0)
        assert b"<39>" not in body.data
        body.most = 1 << 20
        assert body.on_room is not None
        body.on_room()
        await request
        assert all(f'"<{n}>"'.encode() in body.data for n in range(pieces))

    run(scene)
