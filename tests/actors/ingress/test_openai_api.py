"""The HTTP interface before a scripted model: what OpenAI's own client makes of it, and the bytes themselves."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import openai
import pytest

from scripted_chat import ACCEPTED, END, GREETING, HELLO, Ingress, chat_body, served
from slabwire.actors.completion import BadMessages, PromptTooLong
from slabwire.actors.ingress.openai.chat_request import chat_request
from slabwire.actors.ingress.openai.choices import Choices, came
from slabwire.runtime.errors import (
    Cancelled,
    DeadlineExceeded,
    Disconnected,
    Draining,
    EdgeFull,
    HandlerError,
    Interrupted,
    Overloaded,
    StaleReference,
)

USAGE = {
    "prompt_tokens": 7,
    "completion_tokens": 2,
    "total_tokens": 9,
    "prompt_tokens_details": {"cached_tokens": 3},
}
HI = {
    "token": "Hi",
    "bytes": [72, 105],
    "logprob": -0.5,
    "top": [{"token": "Hi", "bytes": [72, 105], "logprob": -0.5}, {"token": "Ho", "bytes": [72, 111], "logprob": -1.5}],
}


async def sdk_answers() -> None:
    ingress = Ingress()
    async with served(ingress) as client:
        whole = await client.chat.completions.create(model="smol", messages=HELLO, max_tokens=5, stop=["\n"])
        assert whole.choices[0].message.content == "Hi you"
        assert whole.choices[0].message.role == "assistant"
        assert whole.choices[0].finish_reason == "stop"
        assert whole.usage is not None
        assert whole.usage.model_dump(exclude_none=True) == USAGE
        assert whole._request_id is not None
        talk: Any = [*HELLO, whole.choices[0].message, {"role": "user", "content": "And?"}]
        again = await client.chat.completions.create(model="smol", messages=talk)
        assert again.object == "chat.completion"
        assert [each["role"] for each in ingress.chat.asked[1]["messages"]] == ["user", "assistant", "user"]
    assert ingress.chat.asked[0]["target"] == "cache.chat"
    assert (ingress.chat.asked[0]["max_tokens"], ingress.chat.asked[0]["stop"]) == (5, ["\n"])


async def sdk_streams() -> None:
    async with served(Ingress()) as client:
        stream = await client.chat.completions.create(
            model="smol", messages=HELLO, stream=True, stream_options={"include_usage": True}
        )
        assert stream.response.headers["content-type"] == "text/event-stream; charset=utf-8"
        chunks = [chunk async for chunk in stream]
        assert [chunk.choices[0].delta.content for chunk in chunks[:-1]] == ["", "Hi", " you", None]
        assert chunks[0].choices[0].delta.role == "assistant"
        assert chunks[-2].choices[0].finish_reason == "stop"
        assert chunks[-1].usage is not None
        assert chunks[-1].usage.total_tokens == 9
        async with client.chat.completions.stream(model="smol", messages=HELLO) as helped:
            completion = await helped.get_final_completion()
        assert completion.choices[0].message.content == "Hi you"


async def sdk_lists_models() -> None:
    async with served(Ingress()) as client:
        assert [model.id async for model in client.models.list()] == ["smol"]
        model = await client.models.retrieve("smol")
        assert (model.created, model.object, model.owned_by) == (1700000000, "model", "slabwire")
        with pytest.raises(openai.NotFoundError, match="this server has 'smol'") as caught:
            await client.models.retrieve("some/smoll")
        assert caught.value.code == "model_not_found"


async def sdk_reads_over_pings() -> None:
    first = asyncio.Event()
    async with served(Ingress((first, *GREETING), ping_every_s=0.005)) as client:
        stream = await client.chat.completions.create(model="smol", messages=HELLO, stream=True)
        first.set()  # the headers are here, before the model has answered anything: after a ping
        assert "".join([chunk.choices[0].delta.content or "" async for chunk in stream]) == "Hi you"


async def sdk_sends_too_much() -> None:
    much: Any = [{"role": "user", "content": "a" * 2_000_000}]
    async with served(Ingress(body_bytes=1000)) as client:
        for _ in range(2):  # the connection goes on to be used
            with pytest.raises(openai.APIStatusError, match="larger than 1000 bytes") as caught:
                await client.chat.completions.create(model="smol", messages=much)
            assert caught.value.status_code == 413
        assert (await client.chat.completions.create(model="smol", messages=HELLO)).choices


@pytest.mark.parametrize(
    "scenario", [sdk_answers, sdk_streams, sdk_lists_models, sdk_reads_over_pings, sdk_sends_too_much]
)
def test_openais_client(scenario: Any) -> None:
    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("error", "kind", "code", "param"),
    [
        (PromptTooLong("9000 tokens; this model takes 8192"), openai.BadRequestError, "context_length_exceeded", True),
        (BadMessages("roles must take turns"), openai.BadRequestError, "bad_messages", True),
        (Overloaded("64 requests wait already"), openai.RateLimitError, "overloaded", False),
        (EdgeFull("the edge is full"), openai.RateLimitError, "overloaded", False),
        (Interrupted("llm died"), openai.InternalServerError, "interrupted", False),
        (Draining("llm is stopping"), openai.InternalServerError, "draining", False),
        (DeadlineExceeded("cache.chat is late"), openai.InternalServerError, "deadline", False),
        (Cancelled("llm was restarted"), openai.InternalServerError, "interrupted", False),
        (Disconnected("llm has gone"), openai.InternalServerError, "interrupted", False),
        (StaleReference("block 3 is secret"), openai.InternalServerError, "interrupted", False),
        (HandlerError("KeyError: 'my secret'"), openai.InternalServerError, "internal_error", False),
        (RuntimeError("my secret"), openai.InternalServerError, "internal_error", False),
    ],
)
def test_an_error_before_the_answer_is_one_of_openais(error: Exception, kind: Any, code: str, param: bool) -> None:
    async def scenario() -> None:
        async with served(Ingress((error,), (error,))) as client:
            for stream in (False, True):
                with pytest.raises(kind) as caught:
                    await client.chat.completions.create(model="smol", messages=HELLO, stream=stream)
                raised = caught.value
                assert (raised.code, raised.param) == (code, "messages" if param else None)
                assert "secret" not in str(raised)
                if code in ("overloaded", "interrupted"):
                    assert raised.response.headers["retry-after"] == "1"
                assert raised.response.headers["x-request-id"].startswith("req_")

    asyncio.run(scenario())


def test_an_error_after_the_first_chunk_is_an_event_that_the_client_raises() -> None:
    async def scenario() -> None:
        script = (ACCEPTED, {"text": "Hi", "tokens": 1}, Interrupted("llm died in mid-answer; ask again"))
        ingress = Ingress(script)
        async with served(ingress) as client:
            stream = await client.chat.completions.create(model="smol", messages=HELLO, stream=True)
            assert [(await anext(stream)).choices[0].delta.content for _ in range(2)] == ["", "Hi"]
            with pytest.raises(openai.APIError, match="llm died in mid-answer") as caught:
                await anext(stream)
            assert caught.value.code == "interrupted"
        exchange = await ingress.post(stream=True)
        assert exchange.body.endswith(b'"code": "interrupted"}}\n\n')
        assert exchange.complete
        assert b"[DONE]" not in exchange.body

    asyncio.run(scenario())


def test_a_client_that_misspells_is_told_by_openais_client() -> None:
    async def scenario() -> None:
        async with served(Ingress()) as client:
            with pytest.raises(openai.BadRequestError, match="did you mean 'temperature'") as caught:
                await client.chat.completions.create(model="smol", messages=HELLO, extra_body={"temprature": 1})
            assert (caught.value.param, caught.value.type) == ("temprature", "invalid_request_error")
            with pytest.raises(openai.NotFoundError, match="this server has 'smol'"):
                await client.chat.completions.create(model="gpt-4o", messages=HELLO)

    asyncio.run(scenario())


def post(*scripts: tuple[Any, ...], limits: dict[str, Any] | None = None, **fields: Any) -> Any:
    async def scenario() -> Any:
        return await Ingress(*scripts, **(limits or {})).post(**fields)

    return asyncio.run(scenario())


def test_a_stream_byte_for_byte() -> None:
    exchange = post(stream=True, stream_options={"include_usage": True})
    first = exchange.events[0]
    head = (
        f'data: {{"id":"{first["id"]}","object":"chat.completion.chunk","created":{first["created"]},"model":"smol",'
        '"choices":['
    )
    deltas = [
        ('{"role":"assistant","content":"","refusal":null}', "null"),
        ('{"content":"Hi"}', "null"),
        ('{"content":" you"}', "null"),
        ("{}", '"stop"'),
    ]
    expected = "".join(
        f'{head}{{"index":0,"delta":{delta},"logprobs":null,"finish_reason":{reason}}}],"usage":null}}\n\n'
        for delta, reason in deltas
    )
    usage = json.dumps(USAGE, separators=(",", ":"))
    assert exchange.body.decode() == f'{expected}{head}],"usage":{usage}}}\n\ndata: [DONE]\n\n'
    assert first["id"].startswith("chatcmpl-")


def test_without_include_usage_no_chunk_speaks_of_it() -> None:
    exchange = post(stream=True, stream_options={"include_usage": False})
    assert b"usage" not in exchange.body
    assert exchange.events[-1] == "[DONE]"
    assert exchange.events[-2]["choices"][0]["finish_reason"] == "stop"


def test_headers_of_a_stream() -> None:
    headers = post(stream=True).headers
    assert headers.pop("x-request-id").startswith("req_")
    assert headers == {
        "content-type": "text/event-stream; charset=utf-8",
        "cache-control": "no-cache",
        "x-accel-buffering": "no",
    }


def test_text_of_any_kind_arrives() -> None:
    text = 'é "q" \\ \n\r\n\u2028\x85 \U0001f600 \ud83d'
    script = (ACCEPTED, {"text": text, "tokens": 1}, END)
    streamed = post(script, stream=True)
    assert streamed.events[1]["choices"][0]["delta"]["content"] == text
    assert len(streamed.body.decode().splitlines()) == len(streamed.body.split(b"\n")) - 1
    assert "é".encode() in streamed.body
    assert post(script).json["choices"][0]["message"]["content"] == text


def test_logprobs_streamed_and_whole() -> None:
    script = (
        ACCEPTED,
        {"text": "", "tokens": 1, "logprobs": [HI]},
        {"text": "Hi", "tokens": 1, "logprobs": [{"token": "", "bytes": [], "logprob": float("-inf"), "top": []}]},
        {"text": "", "tokens": 0},
        {**END, "finish_reason": "length"},
    )
    first = {"token": "Hi", "logprob": -0.5, "bytes": [72, 105]}
    other = {"token": "Ho", "logprob": -1.5, "bytes": [72, 111]}
    content = [
        {**first, "top_logprobs": [first, other]},
        {"token": "", "logprob": -9999.0, "bytes": [], "top_logprobs": []},
    ]
    streamed = post(script, stream=True, logprobs=True, top_logprobs=2).events
    assert [each["choices"][0]["logprobs"] for each in streamed[1:3]] == [
        {"content": [each], "refusal": None} for each in content
    ]
    assert streamed[3]["choices"][0]["finish_reason"] == "length"
    whole = post(script, logprobs=True, top_logprobs=2).json
    assert whole["choices"][0]["logprobs"] == {"content": content, "refusal": None}


def test_choices_come_interleaved_each_in_its_order() -> None:
    async def scenario() -> None:
        turn = asyncio.Event()
        slow = (ACCEPTED, turn, {"text": "slow", "tokens": 1}, END)
        quick = (ACCEPTED, {"text": "quick", "tokens": 1}, {**END, "cached_tokens": 7})
        ingress = Ingress(slow, quick)
        exchange = ingress.begin(stream=True, n=2, seed=8, stream_options={"include_usage": True})
        await exchange.until(b'"finish_reason":"stop"')
        turn.set()
        *chunks, usage, done = (await exchange.done()).events
        assert [(each["choices"][0]["index"], each["choices"][0]["delta"]) for each in chunks] == [
            (0, {"role": "assistant", "content": "", "refusal": None}),
            (1, {"role": "assistant", "content": "", "refusal": None}),
            (1, {"content": "quick"}),
            (1, {}),
            (0, {"content": "slow"}),
            (0, {}),
        ]
        assert usage["usage"] == {**USAGE, "completion_tokens": 4, "total_tokens": 11}
        assert done == "[DONE]"
        assert [each["seed"] for each in ingress.chat.asked] == [8, 9]

    asyncio.run(scenario())


def test_choices_of_a_whole_answer() -> None:
    other = (ACCEPTED, {"text": "Ho", "tokens": 1}, {**END, "finish_reason": "length"})
    choices = post(GREETING, other, n=2).json["choices"]
    assert [each["index"] for each in choices] == [0, 1]
    assert [each["message"]["content"] for each in choices] == ["Hi you", "Ho"]
    assert [each["finish_reason"] for each in choices] == ["stop", "length"]


def test_one_choice_that_is_turned_away_ends_all() -> None:
    async def scenario() -> None:
        ingress = Ingress((asyncio.Event(),), (Overloaded("no room"),))
        exchange = await ingress.post(n=2, stream=True)
        assert exchange.status == 429
        assert ingress.chat.open == 0

    asyncio.run(scenario())


@pytest.mark.parametrize("script", [(), (ACCEPTED, {"text": "Hi", "tokens": 1})])
def test_a_model_that_just_stops_is_an_error(script: tuple[Any, ...]) -> None:
    exchange = post(script)
    assert exchange.status == 503
    assert "actor 'cache' ended its answer" in exchange.error["message"]


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("accepted", [(), (ACCEPTED, {"text": "Hi", "tokens": 1})])
def test_a_client_that_leaves_ends_the_models_work(stream: bool, accepted: tuple[Any, ...]) -> None:
    async def scenario() -> None:
        begun = asyncio.Event()
        ingress = Ingress((*accepted, begun, asyncio.Event(), END))
        begun.set()
        exchange = ingress.begin(stream=stream, n=2)
        while ingress.chat.open < 2:
            await asyncio.sleep(0)
        exchange.leave()
        await exchange.done()
        assert ingress.chat.open == 0
        assert not exchange.complete
        assert (await ingress.get("/metrics")).body.count(
            b'slabwire_requests_disconnected_total{model="smol"} 1.0'
        ) == 1

    asyncio.run(scenario())


def test_closing_the_connection_of_a_real_client_ends_the_models_work() -> None:
    async def scenario() -> None:
        ingress = Ingress((ACCEPTED, {"text": "Hi", "tokens": 1}, asyncio.Event(), END))
        async with served(ingress) as client:
            stream = await client.chat.completions.create(model="smol", messages=HELLO, stream=True)
            await anext(aiter(stream))
            assert ingress.chat.open == 1
            await stream.close()
            while ingress.chat.open:
                await asyncio.sleep(0.001)
            with pytest.raises(openai.APITimeoutError):
                await client.chat.completions.create(model="smol", messages=HELLO, timeout=0.05)
            while ingress.chat.open:
                await asyncio.sleep(0.001)

    asyncio.run(scenario())


def test_a_server_that_stops_closes_the_streams() -> None:
    async def scenario() -> None:
        ingress = Ingress((ACCEPTED, asyncio.Event()))
        exchange = ingress.begin(stream=True)
        await exchange.until(b"assistant")
        exchange.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await exchange.done()
        assert ingress.chat.open == 0

    asyncio.run(scenario())


def test_streams_end_when_their_choices_are_closed() -> None:
    async def scenario() -> None:
        ingress = Ingress((ACCEPTED, asyncio.Event()))
        choices = Choices("cache", 1.0)
        await choices.begin(ingress.chat.streams(came), chat_request(chat_body(n=3)))
        await choices.accepted()
        assert ingress.chat.open == 3
        choices.close()
        while ingress.chat.open:
            await asyncio.sleep(0)

    asyncio.run(scenario())
