"""`POST /v1/chat/completions`: from the request's first byte to the last of its answer, or to the client's leaving."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ....runtime.errors import DeadlineExceeded, Draining, Overloaded
from ...completion import Item
from ..requests.body import Bodies
from ..requests.limits import Limits, Places
from ..requests.metrics import Metrics, Tally
from ..requests.problems import Problem, problem_of, response_to
from ..requests.refusals import ClientLeft, Refusal
from ..requests.request_id import names_in, request_id
from ..requests.serving import Ask, ServingState
from ..requests.together import beside
from .chat_request import ChatRequest, chat_request
from .choices import Choices, came, open_choices
from .chunks import DONE, Chunks, Whole, event, usage_of
from .event_stream import EventStream
from .models import actor_of
from .seats import Seats

# A client that has stopped reading is not told why its stream ends, once this has passed.
_FAREWELL_S = 1.0


class ChatCompletions:
    """The endpoint, as an ASGI application.

    The status goes out when the model has taken the request on: what fails before is an HTTP error. A streamed request
    that still waits after `Limits.ping_every_s` gets its headers and pings, so that nobody on the way gives up; from
    then on, as after the first chunk, an error is an event, and the stream ends without `[DONE]`.
    """

    def __init__(
        self,
        ask: Ask,
        models: Mapping[str, str],
        limits: Limits,
        state: ServingState,
        metrics: Metrics,
        seats: Seats,
    ) -> None:
        self._streams = ask.streams(came)
        self._models = models
        self._limits = limits
        self._state = state
        self._metrics = metrics
        self._bodies = Bodies(limits)
        self._places = Places(limits, shown=metrics.taken)
        self._seats = seats

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        tally = self._metrics.begin(names_in(scope))
        try:
            status = await self._serve(scope, receive, send, tally)
        except ClientLeft as left:
            status = left.http_status
        except Exception as error:
            problem = self._problem(error, scope)
            status = problem.status
            await response_to(problem)(scope, receive, send)
        tally.end(status)

    async def _serve(self, scope: Scope, receive: Receive, send: Send, tally: Tally) -> int:
        """Answers, and gives the status. Raises what becomes an HTTP error, and ClientLeft."""
        self._check_free()
        asked = chat_request(await self._bodies.read_json(Headers(scope=scope), receive))
        actor = actor_of(self._models, asked.model)
        tally.model, tally.choices = asked.model, asked.n
        self._check_choices(asked)
        if asked.stream:
            return await self._stream(asked, actor, tally, scope, receive, send)
        response = await self._whole(asked, actor, tally, receive)
        await response(scope, receive, send)
        return 200

    def _check_free(self) -> None:
        """Before the body is read: raises Draining or Overloaded."""
        if self._state.draining:
            raise Draining("This server is about to stop and takes no new requests; ask another one, or try again.")
        self._places.check()

    def _check_choices(self, asked: ChatRequest) -> None:
        """Raises Refusal for more of them than can be in flight, or than may be sent to the model with all messages."""
        if asked.n > self._limits.requests:
            raise Refusal(f"'n' is {asked.n}; this server takes up to {self._limits.requests}.", "n", "invalid_value")
        length = sum(len(each["content"]) for each in asked.messages)
        if asked.n > 1 and asked.n * length > self._limits.body_bytes:
            raise Refusal(
                f"'n' is {asked.n}, and the messages of each choice have {length} characters; this server takes "
                f"{self._limits.body_bytes} in all: ask for fewer choices, or send shorter messages.",
                "n",
                "invalid_value",
            )

    async def _whole(self, asked: ChatRequest, actor: str, tally: Tally, receive: Receive) -> Response:
        whole = Whole(asked.model, int(time.time()), asked.n)

        def take(choice: int, items: Sequence[Item]) -> None:
            tally.note(items)
            for each in items:
                whole.add(choice, each)

        async with beside(_leaving(receive), self._state.until_over()), self._choices(actor, asked) as choices:
            await choices.accepted()
            endings = await choices.follow(take)
        tally.usage = usage_of(endings)
        return Response(whole.body(endings, logprobs=asked.logprobs is not None), media_type="application/json")

    async def _stream(
        self, asked: ChatRequest, actor: str, tally: Tally, scope: Scope, receive: Receive, send: Send
    ) -> int:
        events = EventStream(scope, send, self._limits.ping_every_s)
        self._metrics.streamed(direct=events.is_direct)
        try:
            around = beside(_leaving(receive), self._state.until_over(), events.keep_up())
            async with around, self._choices(actor, asked) as choices:
                last = await _relay(asked, choices, events, tally)
        except ClientLeft:
            raise
        except Exception as error:
            if not events.opened:
                raise
            problem = self._problem(error, scope)
            await _say_farewell(events, problem)
            return problem.status
        await events.close(last)
        return 200

    @asynccontextmanager
    async def _choices(self, actor: str, asked: ChatRequest) -> AsyncIterator[Choices]:
        """The request's streams, inside the limits. Raises Overloaded and DeadlineExceeded."""
        timeout_s = self._limits.request_timeout_s
        try:
            # Also here, not only on the way to the model: a client that does not read must not keep its place.
            with self._places.take(asked.n):
                async with (
                    asyncio.timeout(timeout_s),
                    self._seats.take(actor, asked.n),
                    open_choices(self._streams, actor, asked, timeout_s) as choices,
                ):
                    yield choices
        except TimeoutError:
            raise DeadlineExceeded(
                f"The answer was not complete after {timeout_s:g} s, the most that this server gives a request; "
                "ask for fewer tokens (max_tokens)."
            ) from None

    def _problem(self, error: Exception, scope: Scope) -> Problem:
        if isinstance(error, (Draining, Overloaded)):
            self._metrics.rejected(error.code)
        return problem_of(error, request_id(scope), self._places.retry_after_s)


async def _relay(asked: ChatRequest, choices: Choices, events: EventStream, tally: Tally) -> bytes:
    """Sends all of an answer but its end, which it returns."""
    chunks = Chunks(asked.model, int(time.time()), usage=asked.include_usage)

    def take(choice: int, items: Sequence[Item]) -> None:
        if tally.first is None:
            tally.note(items)
        events.write(b"".join([chunks.item(choice, each) for each in items]))
        if events.is_full:
            choices.pause()

    await choices.accepted()
    await events.open(b"".join(chunks.role(choice) for choice in range(asked.n)))
    events.on_room(choices.resume)
    endings = await choices.follow(take)
    await events.send_waiting()
    tally.usage = usage_of(endings)
    return (chunks.usage(tally.usage) if asked.include_usage else b"") + DONE


async def _leaving(receive: Receive) -> None:
    """Raises ClientLeft as soon as the client has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass
    raise ClientLeft("the client left before its answer was complete")


async def _say_farewell(events: EventStream, problem: Problem) -> None:
    try:
        async with asyncio.timeout(_FAREWELL_S):
            await events.close(event(problem.body()))
    except TimeoutError:
        raise ClientLeft("the client has stopped reading its stream") from None
