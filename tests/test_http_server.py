"""The HTTP server over real TLS on real sockets, with small applications."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from email.utils import parsedate_to_datetime
from typing import Any

import pytest

from slabwire.actors.ingress import connection as module
from slabwire.actors.ingress import room as room_module
from slabwire.actors.ingress import server as server_module
from slabwire.actors.ingress.certificate import Certificate, development_certificate
from slabwire.actors.ingress.server import HttpServer
from slabwire.actors.ingress.tls import ListenError, StdlibTerminator

GET = b"GET /%s HTTP/1.1\r\nhost: here\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nhost: here\r\ncontent-length: %d\r\n\r\n"
Application = Callable[[Any, Any, Any], Coroutine[Any, Any, None]]
Scene = Callable[[], Coroutine[Any, Any, None]]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return development_certificate("localhost", tmp_path_factory.mktemp("state") / "tls")


class Client:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def say(self, *parts: bytes) -> None:
        self.writer.write(b"".join(parts))

    async def head(self) -> bytes:
        return await self.reader.readuntil(b"\r\n\r\n")

    async def answer(self) -> bytes:
        """The body of an answer that names its length."""
        lines = (await self.head()).split(b"\r\n")
        length = next(line for line in lines if line.startswith(b"content-length"))
        return await self.reader.readexactly(int(length.partition(b":")[2]))

    async def refusal(self) -> tuple[int, str]:
        """Status and message of an answer after which the server closes."""
        head, _, body = (await self.reader.read()).partition(b"\r\n\r\n")
        assert b"connection: close" in head
        return int(head.split()[1]), json.loads(body)["error"]["message"]

    async def ended(self) -> bool:
        return await self.reader.read() == b""

    async def leave(self) -> None:
        self.writer.transport.abort()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()


class Served:
    def __init__(self, server: HttpServer, certificate: Certificate) -> None:
        self.server = server
        self.context = ssl.create_default_context(cafile=certificate.public)
        self.clients: list[Client] = []

    async def connect(self, **options: Any) -> Client:
        place = ("127.0.0.1", self.server.port)
        streams = await asyncio.open_connection(*place, ssl=self.context, server_hostname="localhost", **options)
        self.clients.append(Client(*streams))
        return self.clients[-1]


@asynccontextmanager
async def serving(application: Application, certificate: Certificate, **options: Any) -> AsyncIterator[Served]:
    served = Served(HttpServer(application, StdlibTerminator(certificate), **options), certificate)
    await served.server.start("127.0.0.1", 0)
    try:
        yield served
    finally:
        for client in served.clients:
            await client.leave()
        await served.server.stop(10)
        assert served.server.stats()["connections"] == served.server.stats()["running"] == 0


async def until(condition: Callable[[], Any]) -> None:
    while not condition():
        await asyncio.sleep(0.001)


def run(scene: Scene) -> None:
    asyncio.run(scene())


async def send_answer(send: Any, body: bytes) -> None:
    length = b"%d" % len(body)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", length)]})
    await send({"type": "http.response.body", "body": body})


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """The path, and how many bytes the body had."""
    nbytes, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        nbytes, more = nbytes + len(message["body"]), message["more_body"]
    await send_answer(send, scope["path"].encode() + b" %d" % nbytes)


class Streams:
    """Begins an endless answer, and ends it when it hears that nobody listens any more."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.left: list[str] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.begun.append(scope["path"])
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x", "more_body": True})
        assert (await receive())["type"] == "http.disconnect"
        self.left.append(scope["path"])


class Holds:
    """Answers when it is told to."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.begun = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.begun += 1
        await self.go.wait()
        await echo(scope, receive, send)


# -- requests ---------------------------------------------------------------------------------------------------------


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
    state, seen = module.State(), []
    for now in (1e9, 1e9 + 0.5, 1e9 + 1):
        monkeypatch.setattr("time.time", lambda now=now: now)
        state.touch_date()
        seen.append(state.default_headers[0][1])
    assert seen == [b"Sun, 09 Sep 2001 01:46:40 GMT"] * 2 + [b"Sun, 09 Sep 2001 01:46:41 GMT"]


def test_pipelined_requests_are_answered_in_order(certificate: Certificate) -> None:
    async def scene() -> None:
        async with serving(echo, certificate) as served:
            client = await served.connect()
            client.say(*(GET % b"%d" % n for n in range(module.MOST_PIPELINED)))
            answers = [await client.answer() for _ in range(module.MOST_PIPELINED)]
            assert answers == [b"/%d 0" % n for n in range(module.MOST_PIPELINED)]

    run(scene)


def test_more_than_may_be_pipelined_are_refused_after_the_answers_to_the_others(certificate: Certificate) -> None:
    async def scene() -> None:
        app = Holds()
        async with serving(app, certificate) as served:
            client = await served.connect()
            client.say(*(GET % b"%d" % n for n in range(module.MOST_PIPELINED + 2)))
            await until(lambda: served.server.stats()["refused"])
            app.go.set()
            for n in range(module.MOST_PIPELINED + 1):
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


# -- clients that leave, or stall -------------------------------------------------------------------------------------


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
            app.go.set()
            assert await client.answer() == b"/ %d" % (4 << 20)

    run(scene)


def test_a_reader_that_takes_nothing_is_cut_off(certificate: Certificate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "READ_WITHIN_S", 0.02)
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


# -- what is no request -----------------------------------------------------------------------------------------------


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


# -- how many ---------------------------------------------------------------------------------------------------------


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
    accept = asyncio.SelectorEventLoop.sock_accept
    failures: list[OSError] = [OSError(errno.EMFILE, "Too many open files"), ConnectionAbortedError()]

    async def flaky(self: asyncio.SelectorEventLoop, listener: socket.socket) -> tuple[socket.socket, Any]:
        if failures:
            raise failures.pop()
        return await accept(self, listener)

    monkeypatch.setattr(asyncio.SelectorEventLoop, "sock_accept", flaky)
    monkeypatch.setattr("slabwire.actors.ingress.tls.ACCEPT_AGAIN_S", 0.01)

    async def scene() -> None:
        async with serving(echo, certificate) as served:
            client = await served.connect()
            client.say(GET % b"")
            assert await client.answer() == b"/ 0"
            assert caplog.messages == ["no connection can be accepted: Too many open files"]

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
            with pytest.raises(ListenError, match="the address is in use"):
                await HttpServer(echo, StdlibTerminator(certificate)).start("127.0.0.1", port)
            await served.server.stop(10)
            successor = HttpServer(echo, StdlibTerminator(certificate))
            await successor.start("127.0.0.1", port)
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
            assert len(pending) == 1  # the connection's end
            assert not loop._ready

    run(scene)
