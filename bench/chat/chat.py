"""`slabwire bench chat`: a language model through the whole stack, beside its engine alone in a loop."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click

from ...cli.rendering.presentation import format_option, print_json
from ...runtime.clients.async_client import AsyncClient
from ..harness.comparison import Comparison, compared
from ..harness.contestant import Seats
from ..harness.machine import describe, lines
from ..harness.rival import Rival, Visited
from ..harness.rival_options import BenchCommand, rival_of, rival_options
from .bare_engine import BareEngine
from .chat_graph import MODEL, ChatGraph, PortStream
from .chat_load import Load, Results, Way
from .chat_report import document, show
from .https_stream import HttpsStream

_TOKENS, _QUICK_TOKENS = 96, 32


@click.command(cls=BenchCommand)
@click.option("--rounds", type=click.IntRange(min=1), default=7, show_default=True, help="Visits to each way.")
@click.option("--seed", default=1, show_default=True, help="Of the order of visits.")
@click.option("--quick", is_flag=True, help=f"One round, {_QUICK_TOKENS} tokens an answer: whether it works.")
@rival_options
@format_option
def command(
    rounds: int, seed: int, quick: bool, form: str, against: Path | None = None, visited_by: int | None = None
) -> None:
    """Tokens a second at 1 and 8 streams, time to the first token, and what each floor adds to a token.

    Ways, each with all that is below it: the bare engine (a process that turns its loop and does nothing else, on the
    core of the llm actor), llm.chat and cache.chat by the client SDK, and HTTPS as OpenAI's clients ask. A round takes
    half a minute.
    """
    about = {"rounds": 1 if quick else rounds, "seed": seed, "tokens": _QUICK_TOKENS if quick else _TOKENS}
    visited = None if visited_by is None else Visited(visited_by)
    with rival_of(against) as rival, ChatGraph() as graph, BareEngine(graph.cpus["llm"]) as bare:
        others = os.sched_getaffinity(0).difference(graph.cpus["llm"]) or os.sched_getaffinity(0)
        seats = Seats(caller=min(others), echo=min(graph.cpus["llm"]))
        machine = describe(seats)
        machine["versions"]["onnxruntime"] = version("onnxruntime")
        # Only now: graph and engine would have inherited it.
        with _pinned(others):
            results, ways = asyncio.run(_measure(graph, bare, about, rival, visited))
    comparison = None if rival is None else Comparison(rival.describe(), list(compared(results.rows(), rival.results)))
    found = document(results, ways, machine, about, comparison)
    if form == "json":
        print_json(found)
    else:
        if comparison is not None:
            comparison.show({way.name: way.title for way in ways})
            click.echo()
        seated = f"engine on CPU {seats.echo}, client on CPU {seats.caller}"
        show(found, ways, [*lines(machine)[:2], f"{seated}; load average {machine['load_average']:.2f} at the start"])


@contextmanager
def _pinned(cpus: set[int]) -> Iterator[None]:
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cpus)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


async def _measure(
    graph: ChatGraph, bare: BareEngine, about: dict[str, Any], rival: Rival | None, visited: Visited | None
) -> tuple[Results, Sequence[Way]]:
    async with AsyncClient(graph.name) as client:
        served = await client.call("ingress.describe")
        https = HttpsStream(served["url"], served["certificate"], MODEL)
        ways = (bare, PortStream("llm", client), PortStream("cache", client), https)
        load = Load(ways, graph, bare, about["tokens"])
        try:
            await load.verify()
            if visited is None:
                await load.run(about["rounds"], about["seed"], rival)
            else:
                await load.serve(visited)
        finally:
            await https.close()
    return load.results, ways
