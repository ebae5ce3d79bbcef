"""Streams of server-sent events that are never silent for long."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from scripted_chat import ACCEPTED, END, Ingress
from slabwire.actors.ingress.openai.chunks import event
from slabwire.actors.ingress.openai.event_stream import PING, EventStream
from slabwire.actors.ingress.requests.refusals import ClientLeft
from slabwire.actors.ingress.requests.together import all_of, beside
from slabwire.runtime.errors import Overloaded

TINY_S = 0.005


def test_pings_before_the_first_token_and_between_two() -> None:
    async def scenario() -> None:
        first, second = asyncio.Event(), asyncio.Event()
        script = (ACCEPTED, first, {"text": "Hi", "tokens": 1}, second, END)
        exchange = Ingress(script, ping_every_s=TINY_S).begin(stream=True)
        await exchange.until(PING + PING)
        assert exchange.events[0]["choices"][0]["delta"]["role"] == "assistant"
        assert len(exchange.events) == 1
        first.set()
        await exchange.until(b'"Hi"')
        seen = len(exchange.body)
        while PING not in exchange.body[seen:]:
            await asyncio.sleep(TINY_S)
        second.set()
        done = await exchange.done()
        assert done.body.endswith(b"data: [DONE]\n\n")
        assert len(done.events) == 4

    asyncio.run(scenario())


def test_whoever_waits_in_the_queue_gets_headers_and_pings() -> None:
    async def scenario() -> None:
        taken = asyncio.Event()
        exchange = Ingress((taken, ACCEPTED, END), ping_every_s=TINY_S).begin(stream=True)
        await exchange.until(PING)
        assert exchange.status == 200
        assert exchange.body.startswith(PING)
        taken.set()
        assert (await exchange.done()).events[-1] == "[DONE]"

    asyncio.run(scenario())


def test_after_a_ping_an_error_is_an_event() -> None:
    async def scenario() -> None:
        fail = asyncio.Event()
        exchange = Ingress((fail, Overloaded("no room")), ping_every_s=TINY_S).begin(stream=True)
        await exchange.until(PING)
        fail.set()
        done = await exchange.done()
        assert done.status == 200
        assert done.complete
        assert [each["error"]["code"] for each in done.events] == ["overloaded"]

    asyncio.run(scenario())


def test_no_ping_after_the_end() -> None:
    async def scenario() -> None:
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        events = EventStream({}, send, TINY_S)
        await events.close(event(b"1"))
        await events.open(PING)
        assert [each["type"] for each in sent] == ["http.response.start", "http.response.body"]
        assert sent[1] == {"type": "http.response.body", "body": b"data: 1\n\n", "more_body": False}

    asyncio.run(scenario())


def test_events_of_several_tasks_go_out_whole_and_the_headers_once() -> None:
    async def scenario() -> None:
        sent: list[Any] = []

        async def slowly(message: Any) -> None:
            await asyncio.sleep(0)
            sent.append(message)

        events = EventStream({}, slowly, 60.0)
        await all_of(events.open(event(b"%d" % number)) for number in range(20))
        await events.close()
        assert [each["type"] for each in sent].count("http.response.start") == 1
        assert b"".join(each.get("body", b"") for each in sent) == b"".join(event(b"%d" % each) for each in range(20))

    asyncio.run(scenario())


def test_a_server_that_says_by_an_oserror_that_the_client_left() -> None:
    async def scenario() -> None:
        async def broken(message: Any) -> None:
            raise BrokenPipeError

        with pytest.raises(ClientLeft):
            await EventStream({}, broken, 60.0).open(PING)

    asyncio.run(scenario())


def test_a_client_that_stops_reading_loses_its_place_at_the_deadline() -> None:
    async def scenario() -> None:
        ingress = Ingress((ACCEPTED, {"text": "Hi", "tokens": 1}, END), request_timeout_s=0.05)
        stuck = asyncio.Event()

        async def receive() -> Any:
            if not stuck.is_set():
                stuck.set()
                return {
                    "type": "http.request",
                    "body": b'{"model":"smol","messages":[{"role":"user","content":"a"}],"stream":true}',
                    "more_body": False,
                }
            return await asyncio.Event().wait()

        async def send(message: Any) -> None:
            if message["type"] == "http.response.body":
                await asyncio.Event().wait()

        scope = {"type": "http", "method": "POST", "path": "/v1/chat/completions", "query_string": b"", "headers": []}
        await ingress.app(scope, receive, send)
        assert ingress.chat.open == 0
        assert b"slabwire_requests_in_flight 0.0" in (await ingress.get("/metrics")).body

    asyncio.run(scenario())


def test_what_runs_beside_ends_with_the_block_and_may_end_it() -> None:
    async def scenario() -> None:
        ended: list[str] = []

        async def wait_for_ever() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                ended.append("waiting")

        async def fail() -> None:
            raise ClientLeft("gone")

        async with beside(wait_for_ever()):
            await asyncio.sleep(0)
        assert ended == ["waiting"]
        with pytest.raises(ClientLeft):
            async with beside(fail()):
                await wait_for_ever()
        assert ended == ["waiting", "waiting"]

    asyncio.run(scenario())
