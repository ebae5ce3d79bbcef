"""Streams whose call has returned: how they end, and that all they hold is given back, once."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from http_stage import Client, Served, run, serving, until
from scripted_chat import ACCEPTED, END, GREETING, HELLO, Ingress
from slabwire.actors.ingress.certificates.certificate import Certificate
from slabwire.actors.ingress.certificates.development import development_certificate
from slabwire.actors.ingress.openai.admission import Admission
from slabwire.actors.ingress.openai.chat_request import chat_request
from slabwire.actors.ingress.openai.choices import came
from slabwire.actors.ingress.openai.event_stream import PING
from slabwire.actors.ingress.openai.narrator import Narrator
from slabwire.actors.ingress.openai.open_answers import OpenAnswers
from slabwire.actors.ingress.openai.seats import Seats
from slabwire.actors.ingress.openai.streamed_answer import StreamedAnswer
from slabwire.actors.ingress.requests.limits import Limits, Places
from slabwire.actors.ingress.requests.metrics import Metrics
from slabwire.actors.ingress.requests.problems import problem_of
from slabwire.actors.ingress.requests.serving import ServingState
from slabwire.runtime.errors import Interrupted

HI = {"text": "Hi", "tokens": 1}
DONE = b"data: [DONE]\n\n"
LAST_CHUNK = b"\r\n0\r\n\r\n"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return development_certificate("localhost", tmp_path_factory.mktemp("state") / "tls")


def request(version: bytes = b"1.1", **fields: Any) -> bytes:
    body = json.dumps({"model": "smol", "messages": HELLO, "stream": True, **fields}).encode()
    head = b"POST /v1/chat/completions HTTP/%b\r\nhost: localhost\r\ncontent-length: %d\r\n\r\n"
    return head % (version, len(body)) + body


async def metrics(ingress: Ingress) -> str:
    return (await ingress.get("/metrics")).body.decode()


async def counted(ingress: Ingress, **by_status: int) -> None:
    """Holds when these requests have ended, each once, and nothing is in flight."""
    told = await metrics(ingress)
    lines = [line for line in told.splitlines() if line.startswith('slabwire_requests_total{model="smol"')]
    found = {line.split('status="')[1][:3]: int(float(line.split()[-1])) for line in lines}
    assert found == {status.removeprefix("s"): count for status, count in by_status.items()}
    assert "slabwire_requests_in_flight 0.0" in told
    assert ingress.chat.open == 0


async def begun(served: Served, *requests: bytes, **options: Any) -> Client:
    """A client whose answer has gone on without its call."""
    state, client = served.server.state, await served.connect(**options)
    before = sum(each.streams_on for each in state.connections)
    client.say(*requests)
    await until(lambda: sum(each.streams_on for each in state.connections) > before and not state.tasks)
    return client


def test_it_ends_when_all_has_come_and_the_connection_goes_on(certificate: Certificate) -> None:
    async def scene() -> None:
        go = asyncio.Event()
        ingress = Ingress((ACCEPTED, HI, go, END))
        async with serving(ingress.app, certificate) as served:
            client = await begun(served, request(stream_options={"include_usage": True}))
            for n in range(2):
                head = await client.head()
                assert b"transfer-encoding: chunked" in head
                assert b"x-request-id: req_" in head
                await client.reader.readuntil(b'"Hi"')
                if n == 0:
                    assert "slabwire_requests_in_flight 1.0" in await metrics(ingress)
                    go.set()
                rest = await client.reader.readuntil(LAST_CHUNK)
                assert b'"total_tokens":9' in rest
                assert rest.endswith(DONE + LAST_CHUNK)
                await counted(ingress, s200=n + 1)
                client.say(request(stream_options={"include_usage": True}) if n == 0 else b"")
            assert served.server.stats()["running"] == 0
        assert 'slabwire_completion_tokens_total{model="smol"} 4.0' in await metrics(ingress)

    run(scene)


def test_a_pipelined_request_is_answered_behind_it(certificate: Certificate) -> None:
    async def scene() -> None:
        go = asyncio.Event()
        # One place for both: that of the first is free before the second begins.
        ingress = Ingress((ACCEPTED, go, END), GREETING, requests=1)
        async with serving(ingress.app, certificate) as served:
            client = await begun(served, request(), request())
            go.set()
            for text in (b'"assistant"', b'" you"'):
                assert b" 200 " in await client.head()
                answer = await client.reader.readuntil(LAST_CHUNK)
                assert text in answer
                assert answer.endswith(DONE + LAST_CHUNK)
            await counted(ingress, s200=2)

    run(scene)


def test_to_http_1_0_its_end_is_that_of_the_connection(certificate: Certificate) -> None:
    async def scene() -> None:
        go = asyncio.Event()
        ingress = Ingress((ACCEPTED, HI, go, END))
        async with serving(ingress.app, certificate) as served:
            client = await begun(served, request(b"1.0"))
            go.set()
            await client.head()
            answer = await client.reader.read()
            assert answer.startswith(b"data: {")
            assert answer.endswith(DONE)
            await counted(ingress, s200=1)

    run(scene)


@pytest.mark.parametrize("choices", [1, 2])
def test_an_error_of_a_choice_is_its_last_event(certificate: Certificate, choices: int) -> None:
    async def scene() -> None:
        go = asyncio.Event()
        other = (ACCEPTED, HI, asyncio.Event())
        ingress = Ingress((ACCEPTED, HI, go, Interrupted("llm died")), *[other] * (choices - 1), requests=2)
        async with serving(ingress.app, certificate) as served:
            client = await begun(served, request(n=choices))
            go.set()
            answer = await client.reader.readuntil(LAST_CHUNK)
            assert b'"code": "interrupted"}}\n\n' in answer
            assert b"[DONE]" not in answer
            await until(lambda: not ingress.chat.open)
            await counted(ingress, s503=1)
            ingress.chat.scripts = [GREETING]
            client.say(request())
            assert DONE in await client.reader.readuntil(LAST_CHUNK)
            await counted(ingress, s503=1, s200=1)

    run(scene)


def test_an_item_that_nobody_understands_is_an_error_of_ours(certificate: Certificate) -> None:
    async def scene() -> None:
        go = asyncio.Event()
        ingress = Ingress((ACCEPTED, go, {"my secret": 1}, END))
        async with serving(ingress.app, certificate) as served:
            client = await begun(served, request())
            go.set()
            answer = await client.reader.readuntil(LAST_CHUNK)
            assert b'"code": "internal_error"' in answer
            assert b"secret" not in answer
            await until(lambda: not ingress.chat.open)
            await counted(ingress, s500=1)

    run(scene)


def test_its_deadline_is_an_error_too(certificate: Certificate) -> None:
    async def scene() -> None:
        ingress = Ingress((ACCEPTED, HI, asyncio.Event()), request_timeout_s=0.3)
        async with serving(ingress.app, certificate) as served:
            client = await begun(served, request())
            answer = await client.reader.readuntil(LAST_CHUNK)
            assert b"not complete after 0.3 s" in answer
            await until(lambda: not ingress.chat.open)
            await counted(ingress, s504=1)

    run(scene)


def test_a_client_that_reads_nothing_keeps_no_place_beyond_the_deadline(certificate: Certificate) -> None:
    async def scene() -> None:
        script = (ACCEPTED, *[{"text": "x" * 10_000, "tokens": 1}] * 5000, END)
        ingress = Ingress(script, request_timeout_s=0.5)
        async with serving(ingress.app, certificate) as served:
            client = await served.connect(limit=1024)
            client.say(request())
            await until(lambda: served.server.state.connections)
            (connection,) = served.server.state.connections
            await until(lambda: connection.flow.write_paused)
            assert ingress.chat.open == 1  # it is held up, and not read to its end
            await until(lambda: not ingress.chat.open)
            await counted(ingress, s504=1)

    run(scene)


@pytest.mark.parametrize("accepted", [True, False])
def test_a_client_that_leaves_ends_it(certificate: Certificate, accepted: bool) -> None:
    async def scene() -> None:
        ingress = Ingress((ACCEPTED, HI, asyncio.Event()) if accepted else (asyncio.Event(),), requests=2)
        async with serving(ingress.app, certificate) as served:
            for n in range(2):
                if accepted:
                    client = await begun(served, request(n=2))
                else:
                    client = await served.connect()
                    client.say(request(n=2))
                    await until(lambda: ingress.chat.open == 2)
                await client.leave()
                await until(lambda: not ingress.chat.open and not served.server.state.connections)
                await until(lambda: not served.server.state.tasks)
                await counted(ingress, s499=n + 1)

    run(scene)


def test_the_end_of_the_server_is_told(certificate: Certificate) -> None:
    async def scene() -> None:
        ingress = Ingress((ACCEPTED, HI, asyncio.Event()))
        async with serving(ingress.app, certificate) as served:
            clients = [await begun(served, request()) for _ in range(3)]
            await served.server.stop(0.05, tell=ingress.state.end, hear_s=0.0)
            for each in clients:
                answer = await each.reader.read()
                assert b"This server stopped before the answer was complete" in answer
                assert answer.endswith(b'"interrupted"}}\n\n' + LAST_CHUNK)
            await until(lambda: not ingress.chat.open)
            await counted(ingress, s503=3)

    run(scene)


def test_a_stop_waits_for_it(certificate: Certificate) -> None:
    async def scene() -> None:
        go = asyncio.Event()
        ingress = Ingress((ACCEPTED, HI, go, END))
        async with serving(ingress.app, certificate) as served:
            client = await begun(served, request())
            stopping = asyncio.create_task(served.server.stop(10, tell=ingress.state.end, hear_s=0.0))
            await asyncio.sleep(0.05)
            assert not stopping.done()
            go.set()
            assert (await client.reader.read()).endswith(DONE + LAST_CHUNK)
            await stopping
            await counted(ingress, s200=1)

    run(scene)


def test_it_is_never_silent_for_long(certificate: Certificate) -> None:
    async def scene() -> None:
        go = asyncio.Event()
        ingress = Ingress((ACCEPTED, HI, go, END), ping_every_s=0.02)
        async with serving(ingress.app, certificate) as served:
            client = await begun(served, request())
            await client.reader.readuntil(b'"Hi"')
            for _ in range(3):
                await client.reader.readuntil(PING)
            go.set()
            assert (await client.reader.readuntil(LAST_CHUNK)).endswith(DONE + LAST_CHUNK)

    run(scene)


def test_many_of_them_have_no_task(certificate: Certificate) -> None:
    async def scene() -> None:
        ingress = Ingress((ACCEPTED, HI, asyncio.Event()), requests=50)
        async with serving(ingress.app, certificate) as served:
            clients = [await served.connect() for _ in range(50)]
            before = len(asyncio.all_tasks())
            for each in clients:
                each.say(request())
            await until(lambda: served.server.stats()["running"] == 50 and not served.server.state.tasks)
            assert len(asyncio.all_tasks()) == before + 50  # of the script alone

    run(scene)


class Pinged:
    """Counts how often it is looked after."""

    def __init__(self) -> None:
        self.turn = self.pings = 0

    def ping(self) -> None:
        self.pings += 1

    def fail(self, error: Exception) -> None: ...


def test_all_are_looked_after_in_turn_and_without_any_nothing_runs() -> None:
    async def scene() -> None:
        among = OpenAnswers(0.02, ServingState(), lambda error, _: problem_of(error, "a request"))
        answers = [Pinged() for _ in range(20)]
        for each in answers:
            among.add(each)
            await asyncio.sleep(0.001)
        assert len({each.turn for each in answers}) > 1
        await until(lambda: all(each.pings >= 2 for each in answers))
        for each in answers:
            among.discard(each)
        assert len(among) == 0
        before = [each.pings for each in answers]
        await until(lambda: among._timer is None)
        await asyncio.sleep(0.02)
        assert [each.pings for each in answers] == before

    asyncio.run(scene())


# -- each end by itself -----------------------------------------------------------------------------------------------


class Told:
    """A body that notes what it is told."""

    def __init__(self) -> None:
        self.on_full: Callable[[], None] | None = None
        self.on_room: Callable[[], None] | None = None
        self.on_left: Callable[[], None] | None = None
        self.is_full = self.has_left = False
        self.data, self.ends = b"", 0

    def write(self, data: bytes) -> None:
        self.data += data

    def end(self, data: bytes = b"") -> None:
        self.data += data
        self.ends += 1


ENDS = ("complete", "failed", "left", "stopped")


@pytest.mark.parametrize("first", ENDS)
@pytest.mark.parametrize("then", ENDS)
def test_it_ends_once_by_whichever_comes_first(first: str, then: str) -> None:
    async def scene() -> None:
        ingress = Ingress((ACCEPTED, HI, asyncio.Event()))
        places, seats, state = Places(Limits(requests=9)), Seats({"cache": 9}), ServingState()
        metrics, body = Metrics(["smol"]), Told()
        among = OpenAnswers(60.0, state, lambda error, _: problem_of(error, "a request"))
        asked, tally = chat_request({"model": "smol", "messages": HELLO}), metrics.begin()
        tally.model = "smol"
        admission = Admission(places.take(1), seats, "cache", 60.0)
        choices = await admission.begin(ingress.chat.streams(came), asked)
        StreamedAnswer(admission, Narrator(asked, choices, tally), body, tally, among).go()
        assert (places.taken, len(among), body.ends) == (1, 1, 0)
        on_left, (choice,) = body.on_left, choices._each
        assert on_left is not None
        ends = {
            "complete": lambda: choice.came([END]),
            "failed": lambda: choices.fail(Interrupted("llm died")),
            "left": on_left,
            "stopped": state.end,
        }
        ends[first]()
        after = body.data, body.ends
        ends[then]()
        choice.came([HI])
        await until(lambda: not ingress.chat.open)
        assert (body.data, body.ends) == after
        assert body.ends == (0 if first == "left" else 1)
        assert (places.taken, len(among)) == (0, 0)
        assert await seats.take("cache", 9) == 5  # all are free again
        waiting = asyncio.create_task(seats.take("cache", 1))
        await asyncio.sleep(0)
        assert not waiting.done()  # and no more than there are
        waiting.cancel()
        status = {"complete": 200, "failed": 503, "left": 499, "stopped": 503}[first]
        told = metrics.text("")[0].decode()
        assert f'slabwire_requests_total{{model="smol",status="{status}"}} 1.0' in told
        assert told.count("slabwire_requests_total{") == 1

    asyncio.run(scene())


def test_one_that_begins_when_the_server_is_over_or_its_client_has_left_ends_at_once() -> None:
    async def scene(*, has_left: bool) -> None:
        ingress = Ingress((ACCEPTED, HI, asyncio.Event()))
        places, state, metrics, body = Places(Limits(requests=9)), ServingState(), Metrics(["smol"]), Told()
        among = OpenAnswers(60.0, state, lambda error, _: problem_of(error, "a request"))
        asked, tally = chat_request({"model": "smol", "messages": HELLO}), metrics.begin()
        admission = Admission(places.take(1), Seats({}), "cache", 60.0)
        choices = await admission.begin(ingress.chat.streams(came), asked)
        body.has_left = has_left
        if not has_left:
            state.end()
        StreamedAnswer(admission, Narrator(asked, choices, tally), body, tally, among).go()
        assert body.ends == (0 if has_left else 1)
        assert b'"Hi"' not in body.data
        assert (places.taken, len(among)) == (0, 0)
        await until(lambda: not ingress.chat.open)

    asyncio.run(scene(has_left=True))
    asyncio.run(scene(has_left=False))
