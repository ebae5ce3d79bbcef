"""`POST /v1/chat/completions`: from the request's first byte to the last of its answer, or to the client's leaving."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

from ....runtime.errors import Draining, Overloaded
from ...completion import Item
from ..requests.asgi import Receive
from ..requests.body import Bodies
from ..requests.exchange import Exchange
from ..requests.limits import Limits, Places
from ..requests.metrics import Metrics, Tally
from ..requests.problems import Problem, problem_of
from ..requests.refusals import ClientLeft, Refusal
from ..requests.serving import Ask, ServingState
from ..requests.together import beside
from .admission import Admission
from .chat_request import ChatRequest, chat_request
from .choices import Choices, came, overdue
from .chunks import Whole, event, usage_of
from .event_stream import EventStream
from .models import actor_of
from .narrator import Narrator
from .open_answers import OpenAnswers
from .seats import Seats
from .streamed_answer import StreamedAnswer

# A client that has stopped reading is not told why its stream ends, once this has passed.
_FAREWELL_S = 1.0


class ChatCompletions:
    """The endpoint.

    The status goes out when the model has taken the request on: what fails before is an HTTP error. A streamed request
    that still waits after `Limits.ping_every_s` gets its headers and pings, so that nobody on the way gives up; from
    then on, as after the first chunk, an error is an event, and the stream ends without `[DONE]`. Where the server
    hands over the body, the call is over once the model has taken the request on: see `StreamedAnswer`.
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
        self._open = OpenAnswers(limits.ping_every_s, state, self._problem, metrics.are_open)

    async def __call__(self, exchange: Exchange) -> None:
        tally = self._metrics.begin(exchange.names)
        try:
            status = await self._serve(exchange, tally)
        except ClientLeft as left:
            status = left.http_status
        except Exception as error:
            problem = self._problem(error, tally)
            status = problem.status
            await exchange.answer_problem(problem)
        if status is not None:
            tally.end(status)

    async def _serve(self, exchange: Exchange, tally: Tally) -> int | None:
        """Answers, and gives the status; None where the answer goes on by itself, and ends the tally. Raises what
        becomes an HTTP error, and ClientLeft.
        """
        self._check_free()
        asked = chat_request(await self._bodies.read_json(exchange))
        actor = actor_of(self._models, asked.model)
        tally.model, tally.choices = asked.model, asked.n
        self._check_choices(asked)
        if asked.stream:
            return await self._stream(asked, actor, tally, exchange)
        await exchange.answer(await self._whole(asked, actor, tally, exchange.receive))
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

    async def _whole(self, asked: ChatRequest, actor: str, tally: Tally, receive: Receive) -> bytes:
        whole = Whole(asked.model, int(time.time()), asked.n)

        def take(choice: int, items: Sequence[Item]) -> None:
            tally.note(items)
            for each in items:
                whole.add(choice, each)

        async with self._admitted(actor, asked) as admission, beside(_leaving(receive), self._state.until_over()):
            choices = await admission.begin(self._streams, asked)
            endings = await choices.follow(take)
        tally.usage = usage_of(endings)
        return whole.body(endings, logprobs=asked.logprobs is not None)

    async def _stream(self, asked: ChatRequest, actor: str, tally: Tally, exchange: Exchange) -> int | None:
        events = EventStream(exchange.scope, exchange.send, self._limits.ping_every_s)
        self._metrics.streamed(direct=events.is_direct)
        try:
            async with self._admitted(actor, asked) as admission:
                narrator = Narrator(asked, admission.choices, tally)
                async with beside(_leaving(exchange.receive), self._state.until_over(), events.keep_up()):
                    choices = await admission.begin(self._streams, asked)
                    await events.open(narrator.opening())
                    sending = None if events.is_direct else _by_asgi(choices, narrator, events)
                    last = b"" if sending is None else await self._metrics.while_open(sending)
                if events.direct is not None:
                    StreamedAnswer(admission, narrator, events.direct, tally, self._open).go()
                    return None
        except ClientLeft:
            raise
        except Exception as error:
            if not events.opened:
                raise
            problem = self._problem(error, tally)
            await _say_farewell(events, problem)
            return problem.status
        await events.close(last)
        return 200

    @asynccontextmanager
    async def _admitted(self, actor: str, asked: ChatRequest) -> AsyncIterator[Admission]:
        """What the request holds, inside the limits; given back at the end, unless it is kept. Raises Overloaded and
        DeadlineExceeded.
        """
        timeout_s = self._limits.request_timeout_s
        admission = Admission(self._places.take(asked.n), self._seats, actor, timeout_s)
        try:
            # Also here, not only on the way to the model: a client that does not read must not keep its place.
            async with asyncio.timeout(timeout_s):
                yield admission
        except TimeoutError:
            raise overdue(timeout_s) from None
        finally:
            if not admission.is_kept:
                admission.give_back()

    def _problem(self, error: Exception, tally: Tally) -> Problem:
        if isinstance(error, (Draining, Overloaded)):
            self._metrics.rejected(error.code)
        return problem_of(error, tally.names.request if tally.names else "", self._places.retry_after_s)


async def _by_asgi(choices: Choices, narrator: Narrator, events: EventStream) -> bytes:
    """Sends all of an answer but its end, which it returns."""
    narrator.begin(events.body)
    endings = await choices.follow(narrator.take, narrator.pieces_of)
    await events.send_waiting()
    return narrator.closing(endings)


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
