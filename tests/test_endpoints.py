"""What surrounds the answers of the HTTP interface: limits, names of requests, unexpected errors, probes, the page."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from scripted_chat import ACCEPTED, END, GREETING, Ingress
from slabwire.actors.ingress.limits import Limits, Places
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
        with places.take(1):
            now[0] += 40.0
    assert places.retry_after_s == 20
    with places.take(2), pytest.raises(Overloaded, match="try again in 20 s"):
        places.check()


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


def test_a_model_that_is_silent_is_waited_for_once_by_all_probes() -> None:
    async def scenario() -> None:
        ingress = Ingress(described=asyncio.Event())
        first, *others = await asyncio.gather(*(ingress.get("/readyz") for _ in range(5)))
        assert first.json["reasons"] == ["actor 'cache' (model 'smol') did not answer within 1 s; see `slabwire top`"]
        assert [each.status for each in others] == [503] * 4
        assert ingress.chat.calls == ["cache.describe"]

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
