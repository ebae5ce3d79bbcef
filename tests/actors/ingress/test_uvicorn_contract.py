"""What our server relies on in uvicorn: its classes are held here, so that a new minor version shows what has moved.

Everything goes over plain asyncio transports. How a connection behaves is asked of uvicorn's own protocol class and of
ours, which does most of it in another way.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any

import pytest
import uvicorn
from uvicorn.config import Config
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from slabwire.actors.ingress.http.connection import Connection
from slabwire.actors.ingress.http.flow import OF_UVICORN, Flow
from slabwire.actors.ingress.http.state import State

GET = b"GET /%s HTTP/1.1\r\nhost: here\r\n\r\n"
Kind = type[HttpToolsProtocol] | type[Connection]
both = pytest.mark.parametrize("kind", [HttpToolsProtocol, Connection])
Application = Callable[[Any, Any, Any], Coroutine[Any, Any, None]]


def config_of(application: Application, **options: Any) -> Config:
    config = Config(
        application,
        http=HttpToolsProtocol,
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        log_level="error",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        **options,
    )
    config.load()
    return config


class Served:
    """A server of one application, its protocols, and connections to it."""

    server: asyncio.Server

    def __init__(self, application: Application, kind: Kind, **options: Any) -> None:
        self.config = config_of(application, **options)
        self.kind = kind
        self.state = State()
        self.protocols: list[HttpToolsProtocol] = []
        self.writers: list[asyncio.StreamWriter] = []

    def protocol(self) -> HttpToolsProtocol:
        if self.kind is Connection:
            self.protocols.append(Connection(self.config, self.state))
        else:
            self.protocols.append(HttpToolsProtocol(self.config, self.state, {}, asyncio.get_running_loop()))
        return self.protocols[-1]

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection(*self.address)
        self.writers.append(writer)
        return reader, writer

    async def until(self, condition: Callable[[], Any]) -> None:
        while not condition():
            await asyncio.sleep(0.001)

    @property
    def address(self) -> tuple[str, int]:
        return self.server.sockets[0].getsockname()  # type: ignore[no-any-return]

    async def end(self) -> None:
        self.server.close()
        for writer in self.writers:
            writer.transport.abort()
        await self.until(lambda: not self.state.connections and not self.state.tasks)
        await self.server.wait_closed()


@asynccontextmanager
async def serving(application: Application, kind: Kind, **options: Any) -> AsyncIterator[Served]:
    served = Served(application, kind, **options)
    served.server = await asyncio.get_running_loop().create_server(served.protocol, "127.0.0.1", 0)
    try:
        yield served
    finally:
        await served.end()


async def body_of(receive: Any) -> bytes:
    body, more = b"", True
    while more:
        message = await receive()
        assert message["type"] == "http.request"
        body, more = body + message["body"], message["more_body"]
    return body


async def answer(send: Any, body: bytes, status: int = 200) -> None:
    length = b"%d" % len(body)
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-length", length)]})
    await send({"type": "http.response.body", "body": body})


async def echo(scope: Any, receive: Any, send: Any) -> None:
    await answer(send, scope["path"].encode() + b" " + await body_of(receive))


async def answer_from(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(line for line in head.split(b"\r\n") if line.startswith(b"content-length"))
    return await reader.readexactly(int(length.partition(b":")[2]))


def run(scene: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(scene())


# -- shapes -----------------------------------------------------------------------------------------------------------


def test_the_minor_version_is_the_one_that_was_looked_at() -> None:
    assert uvicorn.__version__.split(".")[:2] == ["0", "54"]


def test_constructors_take_what_we_give() -> None:
    assert list(inspect.signature(HttpToolsProtocol).parameters) == ["config", "server_state", "app_state", "_loop"]
    assert not inspect.signature(ServerState).parameters
    ours = {"http", "ws", "lifespan", "interface", "log_config", "log_level", "access_log"}
    ours |= {"proxy_headers", "server_header", "timeout_keep_alive", "reset_contextvars"}
    assert ours <= set(inspect.signature(Config).parameters)


@pytest.mark.parametrize(
    ("method", "parameters"),
    [
        ("connection_made", ["transport"]),
        ("connection_lost", ["exc"]),
        ("data_received", ["data"]),
        ("pause_writing", []),
        ("resume_writing", []),
        ("on_message_begin", []),
        ("on_headers_complete", []),
        ("on_url", ["url"]),
        ("on_header", ["name", "value"]),
        ("on_body", ["body"]),
        ("on_message_complete", []),
        ("shutdown", []),
    ],
)
def test_what_we_override_or_call_is_there(method: str, parameters: list[str]) -> None:
    assert list(inspect.signature(getattr(HttpToolsProtocol, method)).parameters) == ["self", *parameters]


def test_attributes_are_there() -> None:
    async def scene() -> None:
        async with serving(echo, HttpToolsProtocol) as served:
            reader, writer = await served.connect()
            await served.until(lambda: served.state.connections)
            (protocol,) = served.protocols
            assert vars(protocol)["cycle"] is vars(protocol)["timeout_keep_alive_task"] is None
            assert protocol.loop is asyncio.get_running_loop()
            assert protocol.server == served.address
            assert (protocol.client, protocol.scheme) == (writer.get_extra_info("sockname"), "http")
            writer.write(GET % b"")
            await answer_from(reader)
            assert (protocol.headers, protocol.url) == ([(b"host", b"here")], b"/")
            assert protocol.cycle.response_complete

    run(scene)


def test_the_state_is_shared_and_counts() -> None:
    async def scene() -> None:
        async with serving(echo, HttpToolsProtocol) as served:
            reader, writer = await served.connect()
            writer.write(GET % b"")
            await answer_from(reader)
            assert served.state.connections == set(served.protocols)
            assert served.state.total_requests == 1
            await served.until(lambda: not served.state.tasks)
            writer.transport.abort()
            await served.until(lambda: not served.state.connections)

    run(scene)


def test_loading_leaves_the_application_as_it_is() -> None:
    assert config_of(echo).loaded_app is echo


def test_behind_an_upgrade_the_parser_reads_no_body() -> None:
    async def scene() -> None:
        async with serving(echo, HttpToolsProtocol) as served:
            reader, writer = await served.connect()
            writer.write(
                b"POST /a HTTP/1.1\r\nhost: h\r\nconnection: upgrade\r\nupgrade: x\r\ncontent-length: 2\r\n\r\n"
            )
            assert await answer_from(reader) == b"/a "  # so that what comes now is no body: we refuse such requests
            assert served.protocols[0].parser.should_upgrade()
            assert served.protocols[0].parser.get_method() == b"POST"
            assert served.protocols[0].parser.get_http_version() == "1.1"

    run(scene)


def test_what_it_keeps_of_a_connection_is_what_has_slots_with_us() -> None:
    async def scene() -> None:
        protocol = HttpToolsProtocol(config_of(echo), ServerState(), {}, asyncio.get_running_loop())
        protocol.on_message_begin()
        assert set(vars(protocol)) == set(OF_UVICORN)

    run(scene)


def test_our_flow_stands_for_uvicorns() -> None:
    transport = asyncio.Transport()

    async def scene() -> None:
        theirs = FlowControl(transport)
        names = {each for each in dir(theirs) if not each.startswith("_")}
        assert names <= set(dir(Flow(transport)))

    run(scene)


# -- behaviour --------------------------------------------------------------------------------------------------------


@both
def test_a_connection_is_kept_alive_and_closed_when_it_was_idle_too_long(kind: Kind) -> None:
    async def scene() -> None:
        async with serving(echo, kind, timeout_keep_alive=0.02) as served:
            reader, writer = await served.connect()
            for path in (b"a", b"b"):
                writer.write(GET % path)
                assert await answer_from(reader) == b"/%s " % path
            assert await reader.read() == b""

    run(scene)


@both
def test_pipelined_requests_are_answered_one_after_the_other(kind: Kind) -> None:
    running: list[str] = []

    async def one_by_one(scope: Any, receive: Any, send: Any) -> None:
        running.append(scope["path"])
        assert len(running) == 1
        await asyncio.sleep(0)
        await answer(send, scope["path"].encode())
        running.remove(scope["path"])

    async def scene() -> None:
        async with serving(one_by_one, kind) as served:
            reader, writer = await served.connect()
            writer.write(b"".join(GET % (b"%d" % n) for n in range(5)))
            assert [await answer_from(reader) for _ in range(5)] == [b"/%d" % n for n in range(5)]

    run(scene)


@both
def test_an_application_hears_that_its_client_has_left_in_the_middle_of_an_answer(kind: Kind) -> None:
    heard: list[Any] = []

    async def endless(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x", "more_body": True})
        heard.append(await receive())
        await send({"type": "http.response.body", "body": b"to nobody", "more_body": True})

    async def scene() -> None:
        async with serving(endless, kind) as served:
            reader, writer = await served.connect()
            writer.write(GET % b"")
            assert (await reader.readuntil(b"\r\n\r\n")).endswith(b"transfer-encoding: chunked\r\n\r\n")
            assert await reader.readexactly(6) == b"1\r\nx\r\n"
            writer.close()
            await served.until(lambda: heard)
            assert heard == [{"type": "http.disconnect"}]

    run(scene)


@both
def test_a_client_that_expects_100_is_told_to_go_on_when_its_body_is_asked_for(kind: Kind) -> None:
    async def scene() -> None:
        async with serving(echo, kind) as served:
            reader, writer = await served.connect()
            writer.write(b"POST / HTTP/1.1\r\nhost: here\r\ncontent-length: 2\r\nexpect: 100-continue\r\n\r\n")
            assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            writer.write(b"hi")
            assert await answer_from(reader) == b"/ hi"

    run(scene)


@both
def test_a_large_chunked_body_comes_in_whole_though_it_is_asked_for_late(kind: Kind) -> None:
    ask = asyncio.Event()

    async def late(scope: Any, receive: Any, send: Any) -> None:
        await ask.wait()
        await answer(send, b"%d" % len(await body_of(receive)))

    async def scene() -> None:
        async with serving(late, kind) as served:
            reader, writer = await served.connect()
            writer.write(b"POST / HTTP/1.1\r\nhost: here\r\ntransfer-encoding: chunked\r\n\r\n")
            writer.write((b"10000\r\n" + b"x" * 65536 + b"\r\n") * 64 + b"0\r\n\r\n")
            await served.until(lambda: served.protocols and served.protocols[0].flow)
            await served.until(lambda: served.protocols[0].flow.read_paused)
            ask.set()
            assert await answer_from(reader) == b"%d" % (64 * 65536)

    run(scene)


@both
def test_a_slow_reader_holds_the_application_up(kind: Kind) -> None:
    sent: list[int] = []

    async def flood(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for n in range(1000):
            await send({"type": "http.response.body", "body": b"x" * 65536, "more_body": True})
            sent.append(n)

    async def scene() -> None:
        async with serving(flood, kind) as served:
            _, writer = await served.connect()  # asyncio stops reading by itself when nobody takes what has come
            writer.write(GET % b"")
            await served.until(lambda: served.protocols and served.protocols[0].flow)
            await served.until(lambda: served.protocols[0].flow.write_paused)
            assert len(sent) < 1000

    run(scene)


@both
def test_shutdown_closes_what_is_idle_and_lets_what_runs_end(kind: Kind) -> None:
    go = asyncio.Event()

    async def waits(scope: Any, receive: Any, send: Any) -> None:
        await go.wait()
        await answer(send, b"done")

    async def scene() -> None:
        async with serving(waits, kind) as served:
            idle, _ = await served.connect()
            await served.until(lambda: len(served.state.connections) == 1)
            served.protocols[0].shutdown()
            assert await idle.read() == b""
            busy, writer = await served.connect()
            writer.write(GET % b"")
            await served.until(lambda: served.state.tasks)
            served.protocols[1].shutdown()
            go.set()
            assert (await busy.read()).endswith(b"connection: close\r\n\r\ndone")

    run(scene)


@both
def test_a_pipelined_request_begins_without_what_the_one_before_it_has_set(kind: Kind) -> None:
    variable: ContextVar[str] = ContextVar("variable", default="unset")
    seen: list[str] = []

    async def sets(scope: Any, receive: Any, send: Any) -> None:
        seen.append(variable.get())
        variable.set(scope["path"])
        await answer(send, b"ok")

    async def scene() -> None:
        async with serving(sets, kind, reset_contextvars=True) as served:
            reader, writer = await served.connect()
            writer.write(GET % b"a" + GET % b"b")
            assert [await answer_from(reader) for _ in range(2)] == [b"ok", b"ok"]
            assert seen == ["unset", "unset"]

    run(scene)


@both
@pytest.mark.parametrize(
    "request_bytes",
    [
        b"nonsense\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost here\r\n\r\n",
        b"POST / HTTP/1.1\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nx",
        b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n\r\n",
    ],
)
def test_what_is_no_http_or_says_two_things_about_its_length_is_refused(kind: Kind, request_bytes: bytes) -> None:
    async def scene() -> None:
        async with serving(echo, kind) as served:
            reader, writer = await served.connect()
            writer.write(request_bytes)
            assert (await reader.read()).startswith(b"HTTP/1.1 400 Bad Request\r\n")

    run(scene)
