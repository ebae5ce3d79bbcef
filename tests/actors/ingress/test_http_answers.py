"""What an application may send, and how it leaves."""

from __future__ import annotations

import asyncio
import ssl
from contextvars import ContextVar
from typing import Any

import pytest

from http_stage import GET, Served, echo, run, send_answer, serving
from slabwire.actors.ingress.certificates.certificate import Certificate
from slabwire.actors.ingress.certificates.development import development_certificate
from slabwire.actors.ingress.http import connection as module
from slabwire.actors.ingress.requests.streamed_body import EXTENSION

_RECORD_HEAD_NBYTES, _DATA = 5, 23


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return development_certificate("localhost", tmp_path_factory.mktemp("state") / "tls")


class Records:
    """A client that sees the records of TLS in which its answers come."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, context: ssl.SSLContext) -> None:
        self._reader, self._writer = reader, writer
        self._came, self._goes = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._secured = context.wrap_bio(self._came, self._goes, server_hostname="localhost")

    async def shake_hands(self) -> None:
        while True:
            try:
                self._secured.do_handshake()
                return
            except ssl.SSLWantReadError:
                self._send()
                await self._record()
            finally:
                self._send()

    def _send(self) -> None:
        self._writer.write(self._goes.read())

    async def _record(self) -> int:
        """The kind of the next record, which is taken in."""
        head = await self._reader.readexactly(_RECORD_HEAD_NBYTES)
        self._came.write(head + await self._reader.readexactly(int.from_bytes(head[3:])))
        return head[0]

    async def ask(self, said: bytes, end: bytes) -> tuple[bytes, int]:
        """The answer up to these bytes, and in how many records it came."""
        self._secured.write(said)
        self._send()
        answer, records = b"", 0
        while not answer.endswith(end):
            assert await self._record() == _DATA
            records += 1
            try:
                answer += self._secured.read(1 << 16)
            except ssl.SSLWantReadError:
                records -= 1  # a ticket
        return answer, records


async def records_of(served: Served) -> Records:
    reader, writer = await asyncio.open_connection("127.0.0.1", served.server.port)
    client = Records(reader, writer, served.context)
    await client.shake_hands()
    return client


LARGE = b"".join(b"%07d " % number for number in range(1 << 20))


@pytest.mark.parametrize("end", [b"", b"connection: close\r\n"])
def test_an_end_waits_for_who_still_reads(
    certificate: Certificate, monkeypatch: pytest.MonkeyPatch, end: bytes
) -> None:
    monkeypatch.setattr(module, "GOODBYE_WITHIN_S", 0.01)
    monkeypatch.setattr(module, "FRESH_WITHIN_S", 0.01)

    async def large(scope: Any, receive: Any, send: Any) -> None:
        await send_answer(send, LARGE)

    async def scene() -> None:
        async with serving(large, certificate) as served:
            client = await served.connect()
            client.say(b"GET / HTTP/1.1\r\nhost: here\r\n%b\r\n" % end)
            await client.head()
            await asyncio.sleep(0.1)  # what fits into buffers is on its way, the rest waits here
            served.server.leave()
            await asyncio.sleep(0.2)
            assert await client.reader.readexactly(len(LARGE)) == LARGE

    run(scene)


def test_head_and_body_leave_in_one_record(certificate: Certificate) -> None:
    async def scene() -> None:
        async with serving(echo, certificate) as served:
            client = await records_of(served)
            for path in (b"a", b"b"):
                answer, records = await client.ask(GET % path, b"/%s 0" % path)
                assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
                assert records == 1
            client._writer.close()

    run(scene)


def test_so_do_the_head_of_a_stream_and_its_beginning(certificate: Certificate) -> None:
    bodies: list[Any] = []

    async def streams(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": EXTENSION, "body": b"first", "use": bodies.append})

    async def scene() -> None:
        async with serving(streams, certificate) as served:
            client = await records_of(served)
            answer, records = await client.ask(GET % b"", b"\r\n5\r\nfirst\r\n")
            assert (answer[:15], records) == (b"HTTP/1.1 200 OK", 1)
            bodies[0].end(b"last")
            client._writer.close()

    run(scene)


async def answer_of(application: Any, certificate: Certificate, said: bytes = GET % b"") -> bytes:
    """All that comes until the server closes the connection."""
    async with serving(application, certificate) as served:
        client = await served.connect()
        client.say(said)
        return await client.reader.read()


def begins(*headers: tuple[bytes, bytes], bodies: tuple[bytes, ...] = (), status: int = 200) -> Any:
    """An application that sends these, and returns."""

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": status, "headers": list(headers)})
        for number, body in enumerate(bodies, 1):
            await send({"type": "http.response.body", "body": body, "more_body": number < len(bodies)})

    return application


@pytest.mark.parametrize(
    "application",
    [
        pytest.param(begins(), id="a head alone"),
        pytest.param(begins((b"x", b"a\r\nset-cookie: b"), bodies=(b"",)), id="a line in a value"),
        pytest.param(begins((b"x", b"a\nb"), bodies=(b"",)), id="half a line in a value"),
        pytest.param(begins((b"x: y\r\nz", b"a"), bodies=(b"",)), id="a line in a name"),
        pytest.param(begins((b"", b"a"), bodies=(b"",)), id="no name"),
        pytest.param(begins((b"x", b"\0"), bodies=(b"",)), id="a zero"),
        pytest.param(begins((b"content-length", b"1"), bodies=(b"ab",)), id="too long at once"),
        pytest.param(begins(bodies=(b"a",), status=204), id="a body where none may be"),
    ],
)
def test_what_is_no_answer_is_an_error_as_long_as_nothing_has_left(application: Any, certificate: Certificate) -> None:
    head, _, body = asyncio.run(answer_of(application, certificate)).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 500 Internal Server Error\r\ndate: ")
    assert b"\r\nconnection: close" in head
    assert b"cookie" not in head
    assert body == b"Internal Server Error"


@pytest.mark.parametrize("bodies", [(b"a", b"bc"), (b"a", b"")])
def test_later_it_is_the_end_of_the_connection(bodies: tuple[bytes, ...], certificate: Certificate) -> None:
    application = begins((b"content-length", b"2"), bodies=bodies)
    answer = asyncio.run(answer_of(application, certificate))
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert answer.endswith(b"\r\n\r\na")


def test_an_answer_that_closes_says_so_once(certificate: Certificate) -> None:
    application = begins((b"Connection", b"Close"), (b"content-length", b"0"), bodies=(b"",))
    head = asyncio.run(answer_of(application, certificate))
    assert head.lower().count(b"connection: close\r\n") == 1


def test_an_application_chunks_by_its_own_header_too(certificate: Certificate) -> None:
    headers = (b"transfer-encoding", b"chunked"), (b"connection", b"close")
    answer = asyncio.run(answer_of(begins(*headers, bodies=(b"a", b"b")), certificate))
    assert answer.count(b"transfer-encoding") == 1
    assert answer.endswith(b"\r\n\r\n1\r\na\r\n1\r\nb\r\n0\r\n\r\n")


def test_the_head_of_an_answer_is_no_longer_for_what_follows_it(certificate: Certificate) -> None:
    async def scene() -> None:
        async with serving(begins((b"content-length", b"2"), bodies=(b"ok",)), certificate) as served:
            client = await served.connect()
            client.say(b"HEAD / HTTP/1.1\r\nhost: here\r\n\r\n", GET % b"")
            assert b"content-length: 2" in await client.head()
            assert await client.answer() == b"ok"

    run(scene)


def test_a_request_begins_without_what_the_one_before_it_has_set(certificate: Certificate) -> None:
    variable: ContextVar[str] = ContextVar("variable", default="unset")
    seen: list[str] = []

    async def sets(scope: Any, receive: Any, send: Any) -> None:
        seen.append(variable.get())
        variable.set(scope["path"])
        await send_answer(send, b"ok")

    async def scene() -> None:
        async with serving(sets, certificate) as served:
            client = await served.connect()
            client.say(GET % b"a", GET % b"b")
            for _ in range(2):
                assert await client.answer() == b"ok"
            client.say(GET % b"c")
            assert await client.answer() == b"ok"
            assert seen == ["unset"] * 3

    run(scene)


def test_several_may_wait_for_a_request_at_once(certificate: Certificate) -> None:
    heard: list[str] = []

    async def listens(scope: Any, receive: Any, send: Any) -> None:
        await receive()

        async def listen() -> None:
            heard.append((await receive())["type"])

        listening = [asyncio.create_task(listen()) for _ in range(2)]
        await asyncio.sleep(0)
        await send_answer(send, b"ok")
        await asyncio.gather(*listening)

    async def scene() -> None:
        async with serving(listens, certificate) as served:
            client = await served.connect()
            client.say(GET % b"")
            assert await client.answer() == b"ok"
            while len(heard) < 2:
                await asyncio.sleep(0.001)
            assert heard == ["http.disconnect"] * 2

    run(scene)
