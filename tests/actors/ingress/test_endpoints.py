"""What surrounds the answers of the HTTP interface: limits, names of requests, unexpected errors, probes, the page."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import pytest

from scripted_chat import ACCEPTED, END, GREETING, Ingress, ScriptedChat, chat_body
from slabwire.actors.ingress.probes import readiness as readiness_module
from slabwire.actors.ingress.probes.readiness import Readiness
from slabwire.actors.ingress.requests.limits import Limits, Places
from slabwire.actors.ingress.requests.metrics import Metrics
from slabwire.actors.ingress.requests.origin_check import Hosts
from slabwire.actors.ingress.requests.serving import ServingState
from slabwire.runtime.errors import DeadlineExceeded, GraphError, HandlerError, Overloaded, SlabwireError, UnknownPort


def post(*scripts: tuple[Any, ...], limits: dict[str, Any] | None = None, **fields: Any) -> Any:
    async def scenario() -> Any:
        return await Ingress(*scripts, **(limits or {})).post(**fields)

    return asyncio.run(scenario())


def test_a_full_server_says_when_to_come_back() -> None:
    async def scenario() -> None:
        ingress = Ingress((ACCEPTED, asyncio.Event()), requests=2)
        held = ingress.begin(n=2)
        while ingress.chat.open < 2:
            await asyncio.sleep(0)
        refused = await ingress.post()
        assert (refused.status, refused.headers["retry-after"]) == (429, "1")
        assert refused.error == {
            "message": "This server has 2 of at most 2 answers in flight; try again in 1 s.",
            "type": "rate_limit_error",
            "param": None,
            "code": "overloaded",
        }
        held.leave()
        await held.done()
        ingress.chat.scripts = [GREETING]
        assert (await ingress.post(n=2)).status == 200
        too_many = await ingress.post(n=3)
        assert (too_many.status, too_many.error["param"]) == (400, "n")

    asyncio.run(scenario())


def test_those_turned_away_are_told_how_long_a_place_is_held() -> None:
    now = [0.0]
    places = Places(Limits(requests=2), clock=lambda: now[0])
    for _ in range(50):
        place = places.take(1)
        now[0] += 40.0
        place.give_back()
        place.give_back()  # which changes nothing
    assert (places.taken, places.retry_after_s) == (0, 20)
    places.take(2)
    with pytest.raises(Overloaded, match="try again in 20 s"):
        places.check()


def test_and_from_the_first_request_on() -> None:
    now = [0.0]
    places = Places(Limits(requests=2), clock=lambda: now[0])
    places.take(1)
    now[0] = 10.0
    second = places.take(1)
    now[0] = 30.0
    assert places.retry_after_s == 15  # half the age of the oldest
    second.give_back()
    assert places.retry_after_s == 10  # half the time of the one that has ended


def test_large_bodies_have_a_bound_in_sum_and_small_ones_pass() -> None:
    async def scenario() -> None:
        limits = {"body_bytes": 1 << 20, "reading_bytes": 1 << 20}
        ingress, large = Ingress(**limits), b" " * ((1 << 20) - 100)
        first, second = [ingress.upload(large) for _ in range(2)]
        assert (await ingress.post(user="x" * 200)).status == 200
        await second.task
        assert (second.status, second.headers["retry-after"]) == (429, "1")
        assert second.error["code"] == "overloaded"
        assert "take" in second.error["message"]
        first.end(json.dumps(chat_body()).encode())
        await first.task
        assert first.status == 200
        third = ingress.upload(large)  # for which there is room again
        third.end(json.dumps(chat_body()).encode())
        await third.task
        assert third.status == 200

    asyncio.run(scenario())


SAME_SITE = {"host": "localhost:8443", "origin": "https://localhost:8443"}


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"host": "localhost:8443"}, 200),
        (SAME_SITE, 200),
        ({**SAME_SITE, "sec-fetch-site": "same-origin"}, 200),
        ({**SAME_SITE, "sec-fetch-site": "none"}, 200),
        ({**SAME_SITE, "sec-fetch-site": "cross-site", "content-type": "text/plain"}, 403),
        ({**SAME_SITE, "sec-fetch-site": "same-site"}, 403),
        ({**SAME_SITE, "origin": "https://evil.example"}, 403),
        ({**SAME_SITE, "origin": "https://localhost:3000"}, 403),
        ({**SAME_SITE, "origin": "null"}, 403),
        ({"host": "evil.example:8443", "origin": "https://evil.example:8443", "sec-fetch-site": "same-origin"}, 421),
    ],
)
def test_pages_of_other_sites_do_not_get_in(headers: dict[str, str], status: int) -> None:
    async def scenario() -> None:
        ingress = Ingress()
        exchange = await ingress.post(headers=headers)
        assert exchange.status == status
        assert len(ingress.chat.asked) == (status == 200)
        if status != 200:
            assert exchange.error["code"] == {403: "cross_site", 421: "misdirected"}[status]

    asyncio.run(scenario())


def test_whoever_comes_by_a_link_may_read() -> None:
    async def scenario() -> None:
        ingress = Ingress()
        assert (await ingress.get("/", host="localhost:8443", sec_fetch_site="cross-site")).status == 200
        assert (await ingress.get("/livez", host="evil.example")).status == 421

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("host", "known"),
    [
        *[
            (host, True)
            for host in ("localhost", "LOCALHOST:1", "localhost.", "a.localhost", "127.0.0.1:8443", "[::1]:1")
        ],
        *[(host, True) for host in ("192.0.2.7", "chat.example", "Chat.Example:443", "a.wild.example")],
        *[
            (host, False)
            for host in ("", "evil.example", "x.chat.example", "a.b.wild.example", "wild.example", "::1@x")
        ],
    ],
)
def test_names_of_this_server(host: str, known: bool) -> None:
    assert (host in Hosts(["chat.example", "*.wild.example"])) is known
    assert host in Hosts(None)


def test_names_may_change() -> None:
    hosts = Hosts(["chat.example"])
    hosts.know(["inner.example"])
    assert "inner.example" in hosts
    assert "chat.example" not in hosts


@pytest.mark.parametrize("name", ["requests", "body_bytes", "ping_every_s", "request_timeout_s"])
def test_limits_are_above_zero(name: str) -> None:
    with pytest.raises(GraphError, match=f"{name} is 0; it must be above 0"):
        Limits(**{name: 0})


def test_a_request_has_a_deadline() -> None:
    exchange = post((ACCEPTED, asyncio.Event()), limits={"request_timeout_s": 0.01})
    assert (exchange.status, exchange.error["code"]) == (504, "deadline")
    assert exchange.headers["x-should-retry"] == "false"
    streamed = post((ACCEPTED, asyncio.Event()), limits={"request_timeout_s": 0.01}, stream=True)
    assert streamed.events[-1]["error"]["code"] == "deadline"
    assert streamed.complete


@pytest.mark.parametrize(
    ("body", "headers", "status", "words"),
    [
        (b"x" * 101, {}, 413, "larger than 100 bytes"),
        (b"x", {"content-length": "101"}, 413, "larger than 100 bytes"),
        (b"{", {"content-type": "application/json"}, 400, "line 1 column 2"),
        (b"a=b", {"content-type": "application/x-www-form-urlencoded"}, 415, "send application/json"),
        (b"{}", {"content-encoding": "gzip"}, 415, "'gzip' is not supported"),
        (b"{}", {"content-type": "text/plain"}, 400, "model"),
        (b"[" * 100, {}, 400, "line 1"),
    ],
)
def test_a_body_that_is_not_taken(body: bytes, headers: dict[str, str], status: int, words: str) -> None:
    exchange = post(limits={"body_bytes": 100}, body=body, headers=headers)
    assert exchange.status == status
    assert words in exchange.error["message"]
    assert set(exchange.error) == {"message", "type", "param", "code"}


def test_a_body_that_does_not_come_is_not_waited_for() -> None:
    async def scenario() -> None:
        ingress = Ingress(body_timeout_s=0.01)
        sent: list[Any] = []

        async def silence() -> Any:
            await asyncio.Event().wait()

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {"type": "http", "method": "POST", "path": "/v1/chat/completions", "query_string": b"", "headers": []}
        await ingress.app(scope, silence, send)
        assert sent[0]["status"] == 408

    asyncio.run(scenario())


def test_a_client_that_leaves_while_it_sends() -> None:
    async def scenario() -> None:
        ingress = Ingress()
        sent: list[Any] = []

        async def receive() -> Any:
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {"type": "http", "method": "POST", "path": "/v1/chat/completions", "query_string": b"", "headers": []}
        await ingress.app(scope, receive, send)
        assert sent == []
        assert not ingress.chat.asked

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("given", "kept"), [("abc-1.2_3:x", True), ("a" * 129, False), ("a b", False), ("", False), ("a\r\nb", False)]
)
def test_a_request_id_is_echoed_or_made(given: str, kept: bool) -> None:
    for stream in (True, False):
        seen = post(headers={"x-request-id": given}, stream=stream).headers["x-request-id"]
        assert (seen == given) is kept
        assert seen


def test_a_trace_goes_on_with_a_span_of_this_server() -> None:
    trace = "0af7651916cd43dd8448eb211c80319c"
    seen = post(headers={"traceparent": f"00-{trace}-b7ad6b7169203331-01"}).headers["traceparent"]
    assert seen.startswith(f"00-{trace}-")
    assert seen.endswith("-01")
    assert "b7ad6b7169203331" not in seen
    assert "traceparent" not in post(headers={"traceparent": f"00-{'0' * 32}-b7ad6b7169203331-01"}).headers


@pytest.mark.parametrize(
    "error", [RuntimeError("tell no one"), HandlerError("tell no one"), SlabwireError("tell no one")]
)
def test_an_unexpected_error_is_found_by_its_request_id(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        exchange = post((error,), headers={"x-request-id": "r-1"})
    assert exchange.status == 500
    assert "request r-1" in exchange.error["message"]
    assert "request r-1 failed" in caplog.text
    assert type(error).__name__ in caplog.text
    assert "tell no one" not in caplog.text + exchange.body.decode()


def test_a_model_without_an_actor_is_named_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    exchange = post((UnknownPort("the graph has no port 'cache.chat'"),))
    assert exchange.status == 500
    assert "no port 'cache.chat'" in caplog.text


def get(path: str, method: str = "GET", **options: Any) -> Any:
    async def scenario() -> Any:
        return await Ingress(**options).get(path)

    return asyncio.run(scenario())


def test_paths_that_are_not_there_have_openais_errors_too() -> None:
    missing = get("/v1/chat/completion")
    assert (missing.status, missing.error["code"]) == (404, "not_found")
    assert "did you mean '/v1/chat/completions'?" in missing.error["message"]
    wrong = get("/v1/chat/completions")
    assert (wrong.status, wrong.headers["allow"]) == (405, "POST")
    assert wrong.error["message"] == "'/v1/chat/completions' does not take GET; it takes POST."
    far = get("/nothing/like/it").error["message"]
    assert "/v1/models/{model}, " in far


def test_what_is_mounted_by_a_server_and_what_is_read_by_its_head_is_found() -> None:
    async def scenario() -> None:
        ingress = Ingress()
        assert (await ingress.exchange("/below/livez", root_path="/below")).json == {"status": "live"}
        assert (await ingress.exchange("/livez", root_path="/below")).status == 200
        assert (await ingress.exchange("/belowlivez", root_path="/below")).status == 404
        assert (await ingress.exchange("/livez", method="HEAD")).status == 200
        refused = await ingress.exchange("/v1/models/smol", method="DELETE")
        assert (refused.status, refused.headers["allow"]) == (405, "GET, HEAD")

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("kind", "answers"),
    [("websocket", ["websocket.close"]), ("lifespan", ["lifespan.startup.complete", "lifespan.shutdown.complete"])],
)
def test_what_is_no_request_is_answered_as_asgi_asks_for(kind: str, answers: list[str]) -> None:
    sent: list[str] = []

    async def receive() -> Any:
        return {"type": f"{kind}.something"}

    async def send(message: Any) -> None:
        sent.append(message["type"])

    asyncio.run(Ingress().app({"type": kind}, receive, send))  # type: ignore[arg-type]
    assert sent == answers


def test_the_page_runs_nothing_but_its_own_script() -> None:
    page = get("/")
    assert page.status == 200
    assert b"<script>" in page.body
    policy = page.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy
    assert b"http://" not in page.body
    assert b"https://" not in page.body


def test_probes_of_a_server_that_is_well() -> None:
    for path in ("/livez", "/readyz", "/healthz", "/health", "/startupz"):
        assert get(path).status == 200
    assert get("/version").json["name"] == "slabwire"


@pytest.mark.parametrize("described", [RuntimeError("out of order"), DeadlineExceeded("late")])
def test_a_model_that_does_not_answer_makes_the_server_unready(described: Exception) -> None:
    ready = get("/readyz", described=described)
    assert (ready.status, ready.json["status"]) == (503, "not ready")
    assert "actor 'cache' (model 'smol')" in ready.json["reasons"][0]
    assert get("/startupz", described=described).status == 503
    assert get("/livez", described=described).status == 200
    assert get("/v1/models", described=described).json["data"][0]["id"] == "smol"


def test_a_model_that_is_silent_is_waited_for_once_by_all_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readiness_module, "_ANSWER_S", 0.02)

    async def scenario() -> None:
        ingress = Ingress(described=asyncio.Event())
        first, *others = await asyncio.gather(*(ingress.get("/readyz") for _ in range(5)))
        assert first.json["reasons"] == [
            "actor 'cache' (model 'smol') did not answer within 0.02 s; see `slabwire top`"
        ]
        assert [each.status for each in others] == [503] * 4
        assert ingress.chat.calls == ["cache.describe"]

    asyncio.run(scenario())


def test_a_model_that_has_just_answered_is_well_until_it_is_silent_for_too_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(readiness_module, "_ANSWER_S", 0.02)

    async def scenario() -> None:
        now, chat = [0.0], ScriptedChat()
        readiness = Readiness(chat, {"smol": "cache"}, ServingState(), Metrics().roster, clock=lambda: now[0])
        assert await readiness.reasons() == []
        described, chat.described = chat.described, asyncio.Event()
        now[0] = 2.9
        assert await readiness.reasons() == []
        now[0] = 3.0
        assert "did not answer" in (await readiness.reasons())[0]
        now[0] = 0.1
        assert "did not answer" in (await readiness.reasons())[0]  # it is not well again by a look at the clock
        chat.described = described
        assert await readiness.reasons() == []

    asyncio.run(scenario())


def test_models_are_listed_without_asking_their_actors_again() -> None:
    async def scenario() -> None:
        ingress = Ingress()
        for path in ("/v1/models", "/v1/models", "/v1/models/smol"):
            assert (await ingress.get(path)).status == 200
        assert ingress.chat.calls == ["cache.describe"]

    asyncio.run(scenario())


def test_an_error_of_a_model_counts_however_recently_it_answered() -> None:
    async def scenario() -> None:
        chat = ScriptedChat()
        readiness = Readiness(chat, {"smol": "cache"}, ServingState(), Metrics().roster)
        assert await readiness.reasons() == []
        # As `cache` tells it: its own time for `llm` is shorter than the ingress's for `cache`.
        chat.described = DeadlineExceeded("llm.describe did not answer within 1 s")
        await readiness.look()
        assert await readiness.reasons() == [
            "actor 'cache' (model 'smol') failed: DeadlineExceeded: llm.describe did not answer within 1 s"
        ]
        assert readiness.described == {}

    asyncio.run(scenario())


def test_a_server_that_drains_is_unready_and_takes_nothing_new() -> None:
    async def scenario() -> None:
        more = asyncio.Event()
        ingress = Ingress((ACCEPTED, more, END), GREETING)
        running = ingress.begin(stream=True)
        await running.until(b"assistant")
        ingress.state.draining = True
        assert "draining" in (await ingress.get("/readyz")).json["reasons"][0]
        assert (await ingress.get("/livez")).status == 200
        refused = await ingress.post()
        assert (refused.status, refused.error["code"], refused.headers["retry-after"]) == (503, "draining", "1")
        more.set()
        assert (await running.done()).events[-1] == "[DONE]"

    asyncio.run(scenario())
