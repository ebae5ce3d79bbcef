"""Rounds of questions to a chat model by several ways, interleaved as measure.py has it, and what they took.

While one way is measured the others sleep: an idle graph costs nothing, and the bare engine waits for its next order.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple, Protocol

from ..harness.answers import Answer, decode_rate
from ..harness.contestant import BenchError
from ..harness.conversations import MOST_IN_COMMON, Conversations, Messages, continued
from ..harness.measure import Case, Cell, Measurement, say_progress
from ..harness.process import Clock
from ..harness.rival import Rival, Visited
from .bare_engine import BareEngine
from .chat_graph import ChatGraph

STREAMS = (1, 8)
_FIRST = Case("first token", 0)
# A visit takes some seconds; the first order to the bare engine waits until it has loaded the model.
_VISIT_WITHIN_S = 120
_WARM_UP_TOKENS = 4
_FIRST_TOKENS = 8
_GREEDY_TOKENS = 48
# An answer may end while others have not begun: then there is nothing to measure, and all are asked again.
_MOST_ATTEMPTS = 4


def is_beside(process: str) -> bool:
    """Whether a process is neither the engine nor the client, but what stands between them."""
    return process not in ("engine", "client")


class Way(Protocol):
    """One way to ask a chat model; `title` is for people."""

    name: str
    title: str

    async def ask(self, conversations: Sequence[Messages], max_tokens: int, temperature: float) -> list[Answer]: ...


@dataclass
class Results:
    """One sample a round of everything.

    By way and number of streams: `rate` while all decode and `whole`, prompts included, in tokens a second; `cpu` of
    each process in µs a token, prompts included; `waited`, the part of a visit in which the engine waited for its CPU.
    By way: `gap`, in µs from token to token of a single stream. By "bare", "cold" and "cached": `first`, in seconds to
    the first token, and the tokens of the prompt and of its cached part.
    """

    rate: dict[tuple[str, int], Measurement] = field(default_factory=dict)
    whole: dict[tuple[str, int], Measurement] = field(default_factory=dict)
    cpu: dict[tuple[str, int], dict[str, Measurement]] = field(default_factory=dict)
    waited: dict[tuple[str, int], Measurement] = field(default_factory=dict)
    gap: dict[str, Measurement] = field(default_factory=dict)
    first: dict[str, Measurement] = field(default_factory=dict)
    prompts: dict[str, tuple[int, int]] = field(default_factory=dict)
    answers: int = 0
    repeated: int = 0

    def rows(self) -> dict[Cell, Measurement]:
        """What two checkouts are compared by: times in µs, one sample a visit."""
        rows = {}
        for (way, streams), rate in self.rate.items():
            text = _streams_text(streams)
            rows[Cell(Case(f"{text}, a token", streams), way)] = Measurement([[1e6 / each] for each in rate.medians])
            rows[Cell(Case(f"{text}, engine's CPU a token", streams), way)] = self.cpu[way, streams]["engine"]
            if way != "bare":
                rows[Cell(Case(f"{text}, CPU beside the engine a token", streams), way)] = self.beside(way, streams)
        for way, gap in self.gap.items():
            rows[Cell(Case("from token to token", 1), way)] = gap
        for name, first in self.first.items():
            rows[Cell(_FIRST, name)] = Measurement([[each * 1e6] for each in first.medians])
        return rows

    def beside(self, way: str, streams: int) -> Measurement:
        """CPU time of all processes but the engine's and the client's, in µs a token."""
        processes = [each.medians for process, each in self.cpu[way, streams].items() if is_beside(process)]
        return Measurement([[sum(each)] for each in zip(*processes, strict=True)])

    def floor(self, way: str, below: str) -> Measurement:
        """By how much a token of `way` takes longer than one of `below`, in µs, round by round."""
        pairs = zip(self.gap[way].medians, self.gap[below].medians, strict=True)
        return Measurement([[above - beneath] for above, beneath in pairs])


class Visit(NamedTuple):
    """Measures once; `cell` names it."""

    cell: Cell
    measure: Callable[[], Awaitable[None]]


class Load:
    """Asks. `ways` are from the innermost to the outermost; the last is asked for the times to the first token."""

    def __init__(self, ways: Sequence[Way], graph: ChatGraph, bare: BareEngine, tokens: int) -> None:
        self._ways = list(ways)
        self._graph = graph
        self._bare = bare
        self._tokens = tokens
        self._conversations = Conversations()
        self.results = Results()

    async def verify(self) -> None:
        """Without chance every way must give the same words, and as many tokens as its usage says.

        The outermost way is asked first: it computes all of its answer, of which the caches may know when others ask.
        """
        story = self._conversations.story()
        texts = {}
        for way in reversed(self._ways):
            (answer,) = await self._answers(way, [story], _GREEDY_TOKENS, temperature=0.0, may_know=True)
            tokens = answer.completion_tokens
            shown = tokens - (tokens < _GREEDY_TOKENS)  # the token that ends an answer has no text
            if len(answer.pieces) != shown:
                raise BenchError(f"{way.title}: {len(answer.pieces)} tokens came where its usage says {tokens}")
            texts[way.title] = answer.text
        for title, text in texts.items():
            if text != texts[self._bare.title]:
                raise BenchError(f"{title} answers {text!r}, the bare engine {texts[self._bare.title]!r}")

    async def run(self, rounds: int, seed: int, rival: Rival | None = None) -> None:
        """Visits every way with each number of streams once a round, in random order; those of a rival right beside."""
        dice = random.Random(seed)
        if rival is not None:
            await asyncio.to_thread(rival.begin)
        for number in range(1, rounds + 1):
            say_progress(number, rounds)
            groups = self._visits()
            for visits in dice.sample(groups, len(groups)):
                for visit in dice.sample(visits, len(visits)):
                    await _beside(visit, rival, dice)
        if rival is not None:
            rival.end()

    async def serve(self, visited: Visited) -> None:
        """Visits as another checkout's bench orders it."""
        visits = [visit for group in self._visits() for visit in group]
        visited.begin([each.cell for each in visits])
        while (number := await asyncio.to_thread(visited.order)) is not None:
            before = {cell: each.samples for cell, each in self.results.rows().items()}
            await visits[number].measure()
            rows = self.results.rows().items()
            visited.answer((cell, each.rounds[-1], 1) for cell, each in rows if each.samples > before.get(cell, 0))

    def _visits(self) -> list[list[Visit]]:
        """Those that are compared with each other stand in one list."""
        decoding = [
            [
                Visit(Cell(Case(_streams_text(count), count), way.name), partial(self._visit, way, count))
                for way in self._ways
            ]
            for count in STREAMS
        ]
        return [*decoding, [Visit(Cell(_FIRST, self._ways[-1].name), self._first_tokens)]]

    async def _visit(self, way: Way, streams: int) -> None:
        await self._answers(way, [self._conversations.story()], _WARM_UP_TOKENS)
        for _ in range(_MOST_ATTEMPTS):
            before = self._clocks()
            answers = await self._answers(way, [self._conversations.story() for _ in range(streams)], self._tokens)
            rate = decode_rate(answers)
            if rate:
                self._note(way, answers, rate, before)
                return
            self.results.repeated += 1
        raise BenchError(f"{way.title}: {streams} answers were never in the making at once; take more tokens")

    def _note(self, way: Way, answers: list[Answer], rate: float, before: dict[str, Clock]) -> None:
        results, key = self.results, (way.name, len(answers))
        tokens = sum(each.completion_tokens for each in answers)
        took_ns = max(each.ended_ns for each in answers) - min(each.began_ns for each in answers)
        clocks = {process: now - before[process] for process, now in self._clocks().items()}
        actor, alone = clocks.pop("llm"), clocks.pop("bare")
        engine = alone if way is self._bare else actor
        _add(results.rate, key, rate)
        _add(results.whole, key, tokens / took_ns * 1e9)
        _add(results.waited, key, engine.waited_ns / took_ns)
        for process, clock in {"engine": engine, **clocks}.items():
            _add(results.cpu.setdefault(key, {}), process, clock.ran_ns / tokens / 1e3)
        if len(answers) == 1:
            _add(results.gap, way.name, answers[0].gap_us)

    async def _first_tokens(self) -> None:
        """A document cold, by the outermost way and by the engine alone; then the same conversation goes on."""
        document = self._conversations.document()
        (bare,) = await self._answers(self._bare, [document], _FIRST_TOKENS)
        (cold,) = await self._answers(self._ways[-1], [document], _FIRST_TOKENS)
        more = continued(document, cold.text)
        (cached,) = await self._answers(self._ways[-1], [more], _FIRST_TOKENS, may_know=True)
        if cached.cached_tokens < cold.prompt_tokens - 1:
            raise BenchError(
                f"of a conversation that begins with {cold.prompt_tokens} known tokens only {cached.cached_tokens} "
                "were taken from the cache"
            )
        for name, answer in (("bare", bare), ("cold", cold), ("cached", cached)):
            _add(self.results.first, name, answer.first_s)
            self.results.prompts[name] = answer.prompt_tokens, answer.cached_tokens

    async def _answers(
        self,
        way: Way,
        conversations: list[Messages],
        max_tokens: int,
        temperature: float = 1.0,
        *,
        may_know: bool = False,
    ) -> list[Answer]:
        """Asks at once, checks what came, and waits until all is quiet again."""
        async with _limited(way):
            answers = await way.ask(conversations, max_tokens, temperature)
            for each in answers:
                each.check(way.title)
                if not may_know and each.cached_tokens > MOST_IN_COMMON:
                    raise BenchError(f"{way.title}: {each.cached_tokens} tokens of a new conversation were known")
            await self._graph.quiet()
        self.results.answers += len(answers)
        return answers

    def _clocks(self) -> dict[str, Clock]:
        return {"bare": Clock.of(self._bare.pid), **self._graph.clocks(), "client": Clock.of(os.getpid())}


async def _beside(visit: Visit, rival: Rival | None, dice: random.Random) -> None:
    """The visit, and a rival's before or after it."""
    sides = [visit.measure]
    if rival is not None and rival.can_visit(visit.cell):
        sides.append(partial(asyncio.to_thread, rival.visit, visit.cell))
    for side in dice.sample(sides, len(sides)):
        await side()


def _streams_text(streams: int) -> str:
    return f"{streams} stream{'s' * (streams > 1)}"


@asynccontextmanager
async def _limited(way: Way) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(_VISIT_WITHIN_S):
            yield
    except TimeoutError:
        raise BenchError(f"{way.title} has not answered for {_VISIT_WITHIN_S} s") from None


def _add(into: dict[Any, Measurement], key: Any, value: float) -> None:
    into.setdefault(key, Measurement()).rounds.append([value])
