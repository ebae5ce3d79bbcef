"""What one wake-up brings for many streams is written in one pass: a record a stream, and none harms another."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from typing import Any

import pytest

from http_stage import Served, run, serving, until
from scripted_chat import ACCEPTED, HELLO, Ingress
from slabwire.actors.ingress.certificates.certificate import Certificate
from slabwire.actors.ingress.certificates.development import development_certificate

FINISHED = {"finish_reason": "stop", "prompt_tokens": 7, "completion_tokens": 9, "cached_tokens": 0}
BODY = json.dumps({"model": "smol", "messages": HELLO, "stream": True}).encode()
REQUEST = b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n\r\n%b" % (len(BODY), BODY)
RESETS = b"\1\0\0\0\0\0\0\0"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return development_certificate("localhost", tmp_path_factory.mktemp("state") / "tls")


def piece(text: str) -> dict[str, Any]:
    return {"text": text, "tokens": 1}


class Scene:
    """An ingress whose streams say nothing by themselves, and a client of each."""

    def __init__(self, ingress: Ingress, served: Served, clients: list[ssl.SSLSocket]) -> None:
        self.ingress, self.served, self.clients = ingress, served, clients
        self.bring = ingress.chat.group.bring

    async def records(self, client: int) -> list[bytes]:
        """Those of the rest of an answer: `recv` returns at most one."""

        def read() -> list[bytes]:
            found = [b""]
            while not found[-1].endswith(b"0\r\n\r\n"):
                found.append(self.clients[client].recv(1 << 16))
                assert found[-1], "the connection has ended before the answer"
            return found[1:]

        return await asyncio.to_thread(read)

    async def texts(self, client: int) -> list[str]:
        """The pieces of the rest of an answer."""
        return texts_in(b"".join(await self.records(client)))


def texts_in(data: bytes) -> list[str]:
    events = [json.loads(line.removeprefix(b"data: ")) for line in data.splitlines() if line.startswith(b"data: {")]
    deltas = [choice["delta"] for each in events for choice in each.get("choices", ())]
    return [each["content"] for each in deltas if each.get("content")]


@asynccontextmanager
async def clients_of(certificate: Certificate, count: int, *, receive_nbytes: int = 0) -> AsyncIterator[Scene]:
    """Their answers have begun, and go on without their calls."""
    ingress = Ingress((ACCEPTED, asyncio.Event()))

    def begin(served: Served, held: ExitStack) -> ssl.SSLSocket:
        plain = held.enter_context(socket.socket())
        if receive_nbytes:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_nbytes)
        plain.connect(("127.0.0.1", served.server.port))
        client = held.enter_context(served.context.wrap_socket(plain, server_hostname="localhost"))
        client.sendall(REQUEST)
        answer = b""
        while b"assistant" not in answer:
            answer += client.recv(1 << 16)
        return client

    async with serving(ingress.app, certificate) as served:
        with ExitStack() as held:
            clients = [await asyncio.to_thread(begin, served, held) for _ in range(count)]
            await until(lambda: not served.server.state.tasks)
            yield Scene(ingress, served, clients)


def test_pieces_of_one_stream_that_come_together_leave_in_one_record(certificate: Certificate) -> None:
    async def scene() -> None:
        async with clients_of(certificate, 2) as at:
            at.bring([[piece("a")], [piece("A")]])
            at.bring([[piece("b"), piece("th\xe9\u2028"), piece('fo"ur')], []])
            at.bring([[piece("c")], [piece("B"), piece("C")]])
            at.bring([[piece("d"), FINISHED], [FINISHED]])
            records = await at.records(0)
            assert [texts_in(each) for each in records][:4] == [["a"], ["b", "th\xe9\u2028", 'fo"ur'], ["c"], ["d"]]
            assert b'"finish_reason":"stop"' in records[3]
            assert [texts_in(each) for each in await at.records(1)][:2] == [["A"], ["B", "C"]]

    run(scene)


def test_a_client_that_is_gone_in_the_midst_of_a_pass_takes_nobody_along(certificate: Certificate) -> None:
    async def scene() -> None:
        async with clients_of(certificate, 5) as at:
            for n in range(3):
                at.bring([[piece(f"{client} {n} ")] for client in range(5)])
            for gone in (1, 3):  # a reset, and an end, of which the ingress has not heard
                at.clients[gone].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESETS if gone == 1 else bytes(8))
                at.clients[gone].close()
            for n in range(3, 6):  # and does not hear in between
                at.bring([[piece(f"{client} {n} ")] for client in range(5)])
            await until(lambda: at.ingress.chat.open == 3)
            at.bring([[FINISHED]] * 5)
            for client in (0, 2, 4):
                assert await at.texts(client) == [f"{client} {n} " for n in range(6)]
            told = (await at.ingress.get("/metrics")).body.decode()
            assert 'slabwire_requests_total{model="smol",status="200"} 3.0' in told
            assert 'slabwire_requests_total{model="smol",status="499"} 2.0' in told

    run(scene)


def test_one_that_does_not_read_is_paused_and_then_gets_all_in_order(certificate: Certificate) -> None:
    async def scene() -> None:
        async with clients_of(certificate, 3, receive_nbytes=4096) as at:
            reading = [asyncio.create_task(at.texts(client)) for client in (0, 2)]
            streams, brought = at.ingress.chat.group.begun, 0
            while streams[1].goes_on.is_set():
                texts = [f"{client} {brought} ".ljust(2000, "x") for client in range(3)]
                at.bring([[piece(text)] for text in texts])
                brought += 1
                await asyncio.sleep(0)
            assert [each.goes_on.is_set() for each in streams] == [True, False, True]
            at.bring([[piece("last")]] * 3)  # what is on its way comes all the same
            at.bring([[FINISHED]] * 3)
            slow = await at.texts(1)
            for client, texts in enumerate([await reading[0], slow, await reading[1]]):
                expected = [*(f"{client} {n} " for n in range(brought)), "last"]
                assert [text.strip("x") for text in texts] == expected

    run(scene)


def test_an_item_that_nobody_understands_ends_its_own_stream_alone(certificate: Certificate) -> None:
    async def scene() -> None:
        async with clients_of(certificate, 4) as at:
            at.bring([[piece("a")]] * 4)
            at.bring([[piece("b")], [{"text": 5, "tokens": 1}], [["text", "tokens"]], [piece("b")]])
            at.bring([[FINISHED]] * 4)
            for client in (0, 3):
                assert await at.texts(client) == ["a", "b"]
            for client in (1, 2):
                assert await at.texts(client) == ["a"]
            told = (await at.ingress.get("/metrics")).body.decode()
            assert 'slabwire_requests_total{model="smol",status="500"} 2.0' in told

    run(scene)
