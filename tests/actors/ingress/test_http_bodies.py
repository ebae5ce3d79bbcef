"""Bodies in chunks, down to a byte each: what they may cost beside what they bring."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from http_stage import echo, run, serving
from slabwire.actors.ingress.certificates.certificate import Certificate
from slabwire.actors.ingress.certificates.development import development_certificate
from slabwire.actors.ingress.http.request_head import LARGEST_HEAD_NBYTES

CHUNKED = b"POST / HTTP/1.1\r\nhost: here\r\ntransfer-encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    folder: Path = tmp_path_factory.mktemp("tls")
    return development_certificate("localhost", folder)


def chunks(nbytes: int, size: int) -> bytes:
    return (b"%x\r\n" % size + b"a" * size + b"\r\n") * (nbytes // size)


@pytest.mark.parametrize("size", [8, 100, 5000])
def test_chunks_are_handed_on_together(certificate: Certificate, size: int) -> None:
    handed: list[int] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        async def noted() -> Any:
            message = await receive()
            handed.append(len(message.get("body", b"")))
            return message

        await echo(scope, noted, send)

    async def scene() -> None:
        async with serving(application, certificate) as served:
            client = await served.connect()
            client.say(CHUNKED, chunks(100_000, size), END)
            assert await client.answer() == b"/ %d" % (100_000 // size * size)
            client.say(CHUNKED, chunks(40, min(40, size)), END)  # the connection is good for another
            assert await client.answer() == b"/ 40"

    run(scene)
    assert max(handed) > 10_000


def test_a_body_of_bytes_by_themselves_is_turned_away(certificate: Certificate) -> None:
    async def scene() -> None:
        async with serving(echo, certificate) as served:
            client = await served.connect()
            client.say(CHUNKED, chunks(2000, 1), END)  # a few are nobody's trouble
            assert await client.answer() == b"/ 2000"
            client.say(CHUNKED, chunks(4 * LARGEST_HEAD_NBYTES, 1))
            status, message = await client.refusal()
            assert (status, "larger chunks" in message) == (400, True)

    run(scene)


def test_fields_behind_a_body_are_dropped_and_bounded(certificate: Certificate) -> None:
    seen: list[Any] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await echo(scope, receive, send)
        seen.append([name for name, _ in scope["headers"]])

    async def scene() -> None:
        async with serving(application, certificate) as served:
            client = await served.connect()
            client.say(CHUNKED, chunks(100, 100), b"0\r\nx-behind: 1\r\n\r\n")
            assert await client.answer() == b"/ 100"
            assert seen == [[b"host", b"transfer-encoding"]]
            client.say(CHUNKED, chunks(100, 100), b"0\r\n", b"x: y\r\n" * LARGEST_HEAD_NBYTES)
            assert (await client.refusal())[0] == 400

    run(scene)
