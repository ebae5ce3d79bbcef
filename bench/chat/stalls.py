"""`slabwire bench stalls`: how long one client's stream stands still for what another one sends."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import random
import ssl
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from multiprocessing import get_context
from statistics import median
from time import monotonic
from typing import Any
from urllib.parse import urlsplit

import click

from ...actors.ingress.requests.together import beside
from ...cli.rendering.presentation import format_option, print_json, print_table
from ...runtime.clients.async_client import AsyncClient
from ..harness.contestant import BenchError, Seats
from ..harness.conversations import Conversations
from ..harness.machine import describe, lines
from .chat_graph import ChatGraph
from .hostile_bodies import ACCEPTED, BODIES, REFUSED, HostileBody, plain
from .https_stream import HttpsStream

# On a busy machine the longest prompt takes a minute beside a stream.
_WITHIN_S = 300
_QUIET_TOKENS = 60
# Tokens of a stream from before a request to behind its answer.
_BEFORE, _BEHIND = 3, 6
# Nearly all of the model's context: a stream is to last for many visits.
_MOST_TOKENS = 1900
# What is demanded: of a body that is refused, in tokens; of one that is taken, beside a plain prompt of its length.
_MOST_REFUSED, _MOST_TAKEN_S = 2.0, 0.020
REFUSED_HEADS = ("refused", ">status", ">longest gap", ">worst", ">in tokens")
TAKEN_HEADS = ("taken", ">tokens", ">longest gap", ">of a plain prompt", ">more")


@click.command()
@click.option("--rounds", type=click.IntRange(min=1), default=5, show_default=True, help="Times each body is sent.")
@click.option("--seed", default=1, show_default=True, help="Of the order of bodies.")
@click.option("--quick", is_flag=True, help="One round: whether it works.")
@format_option
def command(rounds: int, seed: int, quick: bool, form: str) -> None:
    """The longest gap in one client's stream while another sends bodies that are made to cost much.

    Bodies that are refused are compared with the time of a token, those that are taken with a plain prompt of as many
    tokens, sent right behind them. A round takes about a minute.
    """
    about = {"rounds": 1 if quick else rounds, "seed": seed}
    with ChatGraph() as graph:
        cpus = graph.cpus["llm"]
        machine = describe(Seats(caller=min(cpus), echo=min(cpus)))
        found = {"bench": "stalls", **about, "machine": machine, **asyncio.run(_measure(graph, about))}
    if form == "json":
        print_json(found)
    else:
        _show(found, lines(machine)[:2])


@dataclass
class Gaps:
    """What came of one body: the longest gap of each visit, in seconds, and the last answer to it."""

    status: int = 0
    tokens: int = 0
    longest_s: list[float] = field(default_factory=list)

    def note(self, answer: Answer, longest_s: float) -> None:
        self.status, self.tokens = answer.status, answer.prompt_tokens
        self.longest_s.append(longest_s)


@dataclass(frozen=True)
class Answer:
    """How a body was answered, and from when to when on `time.monotonic`'s clock."""

    status: int
    prompt_tokens: int
    began: float
    ended: float


class Listener:
    """A client's stream, and the moments at which its tokens came; a new stream when one comes to its end."""

    def __init__(self, https: HttpsStream) -> None:
        self.moments: list[float] = []
        self._https = https
        self._conversations = Conversations()
        self._came = asyncio.Condition()

    async def listen(self) -> None:
        """Runs until it is cancelled."""
        while True:
            self.moments.clear()
            async for moment in self._https.moments(self._conversations.story(), _MOST_TOKENS):
                async with self._came:
                    self.moments.append(moment)
                    self._came.notify_all()

    async def tokens(self, count: int, since: float = 0.0) -> None:
        """Waits until so many have come after that moment."""
        async with self._came:
            await self._came.wait_for(lambda: sum(each > since for each in self.moments) >= count)

    def longest_s(self, began: float, ended: float) -> float:
        """The longest gap from a few tokens before to a few behind; 0.0 if another stream has begun since."""
        before = [each for each in self.moments if each < began][-_BEFORE:]
        behind = [each for each in self.moments if each > ended][:_BEHIND]
        within = [each for each in self.moments if began <= each <= ended]
        moments = [*before, *within, *behind]
        return max(later - sooner for sooner, later in pairwise(moments)) if before else 0.0


async def _measure(graph: ChatGraph, about: dict[str, Any]) -> dict[str, Any]:
    async with AsyncClient(graph.name) as client:
        served = await client.call("ingress.describe")
    https = HttpsStream(served["url"], served["certificate"], "model")
    listener, sender = Listener(https), Sender(served)
    async with beside(listener.listen()):
        await listener.tokens(_QUIET_TOKENS)
        quiet = [later - sooner for sooner, later in pairwise(listener.moments[10:])]
        try:
            gaps = await Visits(listener, sender, about["seed"]).run(about["rounds"])
        finally:
            sender.close()
    return _document(median(quiet), max(quiet), gaps)


class Sender:
    """Another client, in a process of its own that waits behind all others for a core: what its own work costs must not
    hold up the listener.
    """

    def __init__(self, served: dict[str, Any]) -> None:
        self._served = served
        self._process = ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=os.nice, initargs=(19,))

    async def send(self, name: str, number: int, tokens: int = 0) -> Answer:
        """Sends the hostile body of that name, or a plain prompt of so many tokens."""
        return await asyncio.get_running_loop().run_in_executor(
            self._process, _send, self._served, name, number, tokens
        )

    def close(self) -> None:
        self._process.shutdown()


def _send(served: dict[str, Any], name: str, number: int, tokens: int) -> Answer:
    body = (plain(tokens) if tokens else BODIES[name]).make(number)
    place = urlsplit(served["url"])
    trust = ssl.create_default_context(cafile=served["certificate"])
    connection = http.client.HTTPSConnection(place.hostname or "", place.port, context=trust, timeout=_WITHIN_S)
    connection.connect()
    try:
        began = monotonic()
        with suppress(OSError):  # turned away before all of it was read: what was said is there
            connection.request("POST", "/v1/chat/completions", body, {"content-type": "application/json"})
        response = connection.getresponse()
        said = json.loads(response.read())
        return Answer(response.status, said.get("usage", {}).get("prompt_tokens", 0), began, monotonic())
    finally:
        connection.close()


class Visits:
    """Sends each body once a round, in random order, while the listener has a stream."""

    def __init__(self, listener: Listener, sender: Sender, seed: int) -> None:
        self._listener = listener
        self._sender = sender
        self._dice = random.Random(seed)
        self._number = 0
        self._gaps: dict[str, Gaps] = {}

    async def run(self, rounds: int) -> dict[str, Gaps]:
        for _ in range(rounds):
            for body in self._dice.sample(REFUSED + ACCEPTED, len(REFUSED + ACCEPTED)):
                try:
                    async with asyncio.timeout(_WITHIN_S):
                        await self._visit(body)
                except TimeoutError:
                    raise BenchError(f"{body.name} was not answered within {_WITHIN_S} s") from None
        return self._gaps

    async def _visit(self, body: HostileBody) -> None:
        answer = await self._send(body.name)
        if (answer.status == 200) != (body in ACCEPTED):
            raise BenchError(f"{body.name} was answered with status {answer.status}")
        if body in ACCEPTED:
            await self._send(f"plain {body.name}", answer.prompt_tokens)

    async def _send(self, name: str, tokens: int = 0) -> Answer:
        """Again, where the stream has ended meanwhile."""
        longest_s = 0.0
        while not longest_s:
            await self._listener.tokens(_BEFORE + 1, monotonic())
            self._number += 1
            answer = await self._sender.send(name, self._number * 382_817 % 1_000_000, tokens)
            await self._listener.tokens(_BEHIND, answer.ended)
            longest_s = self._listener.longest_s(answer.began, answer.ended)
        self._gaps.setdefault(name, Gaps()).note(answer, longest_s)
        return answer


def _document(token_s: float, quiet_s: float, gaps: dict[str, Gaps]) -> dict[str, Any]:
    refused = [_refused(each.name, gaps[each.name], token_s) for each in REFUSED]
    taken = [_taken(each.name, gaps[each.name], gaps[f"plain {each.name}"]) for each in ACCEPTED]
    bars = [
        (
            "the longest gap for a body that is refused, in tokens",
            max(each["tokens"] for each in refused),
            _MOST_REFUSED,
        ),
        ("by how much that of one that is taken is longer, in s", max(each["more_s"] for each in taken), _MOST_TAKEN_S),
    ]
    return {
        "token_s": token_s,
        "quiet_s": quiet_s,
        "refused": refused,
        "taken": taken,
        "bars": [{"what": what, "value": value, "most": most, "is_met": value <= most} for what, value, most in bars],
    }


def _refused(name: str, gaps: Gaps, token_s: float) -> dict[str, Any]:
    longest_s = median(gaps.longest_s)
    figures = {"longest_s": longest_s, "worst_s": max(gaps.longest_s), "tokens": longest_s / token_s}
    return {"body": name, "status": gaps.status, **figures, "rounds": gaps.longest_s}


def _taken(name: str, gaps: Gaps, beside: Gaps) -> dict[str, Any]:
    more_s = median(mine - theirs for mine, theirs in zip(gaps.longest_s, beside.longest_s, strict=True))
    figures = {"longest_s": median(gaps.longest_s), "plain_s": median(beside.longest_s), "more_s": more_s}
    return {"body": name, "prompt_tokens": gaps.tokens, **figures, "rounds": gaps.longest_s}


def _show(found: dict[str, Any], machine_lines: list[str]) -> None:
    rows = [
        (each["body"], str(each["status"]), _ms(each["longest_s"]), _ms(each["worst_s"]), f"{each['tokens']:.2f}")
        for each in found["refused"]
    ]
    title = f"a stream with a token each {_ms(found['token_s'])} (the longest gap of a quiet stretch: "
    print_table(REFUSED_HEADS, rows, title=f"{title}{_ms(found['quiet_s'])}), while others send")
    rows = [
        (each["body"], str(each["prompt_tokens"]), *(_ms(each[name]) for name in ("longest_s", "plain_s", "more_s")))
        for each in found["taken"]
    ]
    print_table(TAKEN_HEADS, rows, title="\nand what is taken, beside a plain prompt of as many tokens")
    click.echo()
    for bar in found["bars"]:
        value = f"{bar['what']}: {bar['value']:.3f}, at most {bar['most']:g} demanded"
        click.echo(f"{value}: {'met' if bar['is_met'] else 'NOT met'}")
    click.echo(f"{found['rounds']} rounds in random order; medians of the longest gaps.")
    for line in machine_lines:
        click.echo(line)


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.1f} ms"
