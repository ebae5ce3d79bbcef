"""Bodies that an application writes itself: framed as HTTP asks, bounded by slow readers, ended by it even later."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from http_stage import GET, POST, run, serving, until
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
    body.end(b"three")
    body.write(b"too late")
    body.end(b"too late")


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
        body.end(b"end")

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


class _Open:
    """Leaves each body open when it returns. `left` are those whose clients have left."""

    def __init__(self) -> None:
        self.bodies: list[StreamedBody] = []
        self.left: list[StreamedBody] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        assert (await receive())["more_body"] is False
        body = await body_of(scope, send)
        body.on_left = lambda: self.left.append(body)
        body.write(scope["path"].encode())
        self.bodies.append(body)


def test_a_body_that_is_left_open_goes_on_and_keeps_no_task(certificate: Certificate) -> None:
    async def scene() -> None:
        app = _Open()
        async with serving(app, certificate) as served:
            client, state = await served.connect(), served.server.state
            for n in range(2):  # the connection goes on
                client.say(GET % b"a")
                await client.head()
                assert await client.reader.readuntil(b"/a\r\n") == b"2\r\n/a\r\n"
                await until(lambda: not state.tasks)
                assert served.server.stats()["running"] == 1
                (connection,) = state.connections
                assert not vars(connection)  # all that is kept of it has a slot
                app.bodies[n].write(b"b")
                app.bodies[n].end(b"c")
                assert await client.reader.readuntil(b"0\r\n\r\n") == b"1\r\nb\r\n1\r\nc\r\n0\r\n\r\n"
                assert (served.server.stats()["running"], served.server.stats()["requests"]) == (0, n + 1)
                assert connection.quiet_s < 60
            assert not app.left

    run(scene)


def test_it_counts_once_at_each_moment(certificate: Certificate) -> None:
    async def scene() -> None:
        app, seen = _Open(), set[int]()
        async with serving(app, certificate) as served:
            client = await served.connect()

            async def watch() -> None:
                while True:
                    seen.add(served.server.stats()["running"])
                    await asyncio.sleep(0)

            watching = asyncio.create_task(watch())
            for _ in range(3):
                client.say(GET % b"a")
                await until(lambda: app.bodies and not served.server.state.tasks)
                app.bodies.pop().end(b"b")
                await client.reader.readuntil(b"0\r\n\r\n")
            watching.cancel()
        assert seen == {0, 1}

    run(scene)


def test_a_pipelined_request_begins_at_the_end_of_a_body_that_was_left_open(certificate: Certificate) -> None:
    async def scene() -> None:
        app = _Open()
        async with serving(app, certificate) as served:
            client = await served.connect()
            client.say(GET % b"a", GET % b"b")
            await until(lambda: app.bodies and not served.server.state.tasks)
            client.say(GET % b"c")
            await client.head()
            for n, path in enumerate((b"/a", b"/b", b"/c")):
                assert len(app.bodies) == n + 1
                app.bodies[n].end()
                assert await client.reader.readuntil(b"0\r\n\r\n") == b"2\r\n%b\r\n0\r\n\r\n" % path
                if n < 2:
                    await client.head()

    run(scene)


def test_to_http_1_0_the_end_of_an_open_body_is_that_of_the_connection(certificate: Certificate) -> None:
    async def scene() -> None:
        app = _Open()
        async with serving(app, certificate) as served:
            client = await served.connect()
            client.say(b"GET /a HTTP/1.0\r\n\r\n")
            await client.head()
            await until(lambda: not served.server.state.tasks)
            app.bodies[0].end(b"b")
            assert await client.reader.read() == b"/ab"

    run(scene)


def test_an_open_body_is_told_once_that_its_client_has_left(certificate: Certificate) -> None:
    async def scene() -> None:
        app = _Open()
        async with serving(app, certificate) as served:
            client = await served.connect()
            client.say(GET % b"a")
            await client.head()
            await until(lambda: not served.server.state.tasks)
            await client.leave()
            await until(lambda: app.left)
            (body,) = app.bodies
            assert body.has_left
            body.write(b"gone")
            body.end(b"gone")
            await until(lambda: not served.server.state.connections)
            assert app.left == app.bodies
            assert (served.server.stats()["running"], served.server.stats()["requests"]) == (0, 0)

    run(scene)


def test_a_stop_waits_for_open_bodies_and_cuts_them_after_its_grace(certificate: Certificate) -> None:
    async def scene(grace_s: float) -> None:
        app = _Open()
        async with serving(app, certificate) as served:
            client = await served.connect()
            client.say(GET % b"a")
            await client.head()
            await until(lambda: not served.server.state.tasks)
            stopping = asyncio.create_task(served.server.stop(grace_s, hear_s=0.0))
            if grace_s > 1:
                await asyncio.sleep(0.05)
                assert not stopping.done()
                app.bodies[0].end(b"b")
                assert (await client.reader.read()).endswith(b"1\r\nb\r\n0\r\n\r\n")
            await stopping
            assert bool(app.left) == (grace_s < 1)

    run(lambda: scene(10.0))
    run(lambda: scene(0.01))


def test_an_open_body_is_told_of_room(certificate: Certificate) -> None:
    async def scene() -> None:
        app, rooms = _Open(), list[bool]()
        async with serving(app, certificate) as served:
            client = await served.connect(limit=1024)
            client.say(GET % b"a")
            await client.head()
            await until(lambda: not served.server.state.tasks)
            (body,) = app.bodies
            body.on_room = lambda: rooms.append(body.is_full)
            wrote = 0
            while not body.is_full:
                body.write(b"x" * 8192)
                wrote += 8192
            body.end(b"y")  # whatever waits goes out, and nobody is told of room any more
            data = b""
            while not data.endswith(b"1\r\ny\r\n0\r\n\r\n"):
                data += await client.reader.read(1 << 16)
            assert data.count(b"x") == wrote
            assert not rooms

    run(scene)


def test_an_answer_that_is_early_ends_the_connection_with_its_body(certificate: Certificate) -> None:
    bodies: list[StreamedBody] = []

    async def early(scope: Any, receive: Any, send: Any) -> None:
        bodies.append(await body_of(scope, send))

    async def scene() -> None:
        async with serving(early, certificate) as served:
            client = await served.connect()
            client.say(POST % 10, b"12345")
            assert b"connection: close" in await client.head()
            await until(lambda: not served.server.state.tasks)
            client.say(b"67890")
            await asyncio.sleep(0.02)
            bodies[0].end(b"x")
            assert await client.reader.read() == b"1\r\nx\r\n0\r\n\r\n"

    run(scene)


class _Handed(StreamedBody):
    """A server's body that takes `most` bytes until it is full."""

    def __init__(self, most: int) -> None:
        self.on_full: Callable[[], None] | None = None
        self.on_room: Callable[[], None] | None = None
        self.on_left: Callable[[], None] | None = None
        self.data = b""
        self.most = most
        self.ended = asyncio.Event()

    @property
    def is_full(self) -> bool:
        return len(self.data) > self.most

    @property
    def has_left(self) -> bool:
        return False

    def write(self, data: bytes) -> None:
        was_full = self.is_full
        self.data += data
        if self.is_full and not was_full and self.on_full is not None:
            self.on_full()

    def end(self, data: bytes = b"") -> None:
        self.data += data
        self.ended.set()


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
            assert body is not None
            body.write(message["body"])
            message["use"](body)
            return
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
    if body is not None:
        await body.ended.wait()
    return sent


def test_an_answer_goes_past_asgi() -> None:
    async def scene() -> None:
        ingress, body = Ingress(), _Handed(1 << 20)
        by_asgi = await post(ingress, body)
        assert [each in body.data for each in (b'"assistant"', b'"Hi"', b'" you"', b'"stop"')] == [True] * 4
        assert body.data.endswith(b"data: [DONE]\n\n")
        assert by_asgi == b""
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
