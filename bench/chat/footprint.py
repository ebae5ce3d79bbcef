"""`slabwire bench footprint`: what a chat graph costs while nobody asks it, and what a second model process adds."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click

from ...cli.rendering.presentation import format_option, print_json, print_table
from ...runtime.clients.async_client import AsyncClient
from ..harness.contestant import BenchError, Seats
from ..harness.conversations import Conversations
from ..harness.machine import describe, lines
from ..harness.process import Memory, mapped_files
from .chat_graph import MODEL, ChatGraph, PortStream
from .https_stream import HttpsStream

MOST_IDLE = 0.02  # of one core, all processes together
MOST_ADDED = 0.4  # of the first model process's PSS

_TOKENS = 16
# Questions until every replica has answered one: they take turns, so as many as there are should do.
_MOST_QUESTIONS = 8
# An answer takes far more than this, and everything else far less.
_ASKED_NS = 50_000_000
_MIB = 1 << 20
_HEADS = ("process", ">idle CPU", ">PSS", ">RSS", ">private", ">shared clean", ">shared dirty")


@click.command()
@click.option("--idle-s", type=click.FloatRange(min=0.1), default=10.0, show_default=True, help="How long to look.")
@format_option
def command(idle_s: float, form: str) -> None:
    """CPU time of an idle chat graph by process, and memory with one and with two replicas of the model.

    Each replica has answered one short question. PSS counts a page that n processes map by 1/n to each, whoever they
    are: other programs that use the same libraries or the same model make it smaller.
    """
    machine = describe(Seats.choose())
    machine["versions"]["onnxruntime"] = version("onnxruntime")
    with ChatGraph() as graph:
        asyncio.run(_ask(graph))
        one, strangers = _memories(graph), _strangers(graph)
        idle = asyncio.run(_idle(graph, idle_s))
    with ChatGraph(replicas=2) as graph:
        asyncio.run(_ask(graph))
        two, more = _memories(graph), _strangers(graph)
    found = _document(one, two, idle, {"idle_s": idle_s, "machine": machine, "strangers": sorted({*strangers, *more})})
    if form == "json":
        print_json(found)
    else:
        _show(found)


async def _ask(graph: ChatGraph) -> None:
    """One short question over HTTPS, and to each replica one by its port; then all is quiet."""
    conversations = Conversations()
    models = [name for name in graph.pids if name.startswith("llm")]
    async with AsyncClient(graph.name) as client:
        served = await client.call("ingress.describe")
        https = HttpsStream(served["url"], served["certificate"], MODEL)
        before = graph.clocks()
        try:
            await https.ask([conversations.story()], _TOKENS, 1.0)
        finally:
            await https.close()
        for _ in range(_MOST_QUESTIONS):
            now = graph.clocks()
            if all((now[name] - before[name]).ran_ns > _ASKED_NS for name in models):
                break
            await PortStream("cache", client).ask([conversations.story()], _TOKENS, 1.0)
        else:
            raise BenchError("a replica got no question")
        await graph.quiet()


def _memories(graph: ChatGraph) -> dict[str, Memory]:
    return {name: Memory.of(pid) for name, pid in graph.pids.items()}


def _strangers(graph: ChatGraph) -> list[int]:
    """Other processes that map the model's file, which is the largest that a replica maps."""
    files = mapped_files(next(pid for name, pid in graph.pids.items() if name.startswith("llm")))
    model = max(files, key=lambda path: files[path])
    pids = (int(each.name) for each in Path("/proc").iterdir() if each.name.isdecimal())
    return [pid for pid in pids if pid not in graph.pids.values() and model in mapped_files(pid)]


async def _idle(graph: ChatGraph, idle_s: float) -> dict[str, float]:
    """Of one core, by process."""
    before, began = graph.clocks(), time.monotonic_ns()
    await asyncio.sleep(idle_s)
    now, took = graph.clocks(), time.monotonic_ns() - began
    return {name: (now[name] - before[name]).ran_ns / took for name in now}


def _document(
    one: Mapping[str, Memory], two: Mapping[str, Memory], idle: dict[str, float], about: dict[str, Any]
) -> dict[str, Any]:
    first = one["llm"].pss
    added = sum(each.pss for name, each in two.items() if name.startswith("llm")) - first
    used = sum(idle.values())
    return {
        "bench": "footprint",
        **about,
        "idle": idle,
        "memory": {"one": _plain(one), "two": _plain(two)},
        "added_bytes": added,
        "bars": [
            {"what": "idle, of one core", "value": used, "most": MOST_IDLE, "is_met": used < MOST_IDLE},
            {
                "what": "PSS that the second replica adds / PSS of a single one",
                "value": added / first,
                "most": MOST_ADDED,
                # Strangers take their shares of the PSS, perhaps of one measurement and not of the other.
                "is_met": None if about["strangers"] else added < MOST_ADDED * first,
            },
        ],
    }


def _plain(memories: Mapping[str, Memory]) -> dict[str, dict[str, int]]:
    return {name: asdict(each) for name, each in memories.items()}


def _show(found: dict[str, Any]) -> None:
    one, two = found["memory"]["one"], found["memory"]["two"]
    print_table(_HEADS, _rows(one, found["idle"]), title="one replica; memory in MiB")
    print_table(_HEADS, _rows(two, {}), title="\ntwo replicas; memory in MiB")
    click.echo(
        f"\nCPU time is of one core, in {found['idle_s']:g} s without a question.\n"
        "PSS of the second: what both replicas have together, less what a single one has "
        f"({_mib(found['added_bytes'])} MiB).\nAlone, one process is charged for all of the weights; side by side each "
        "is charged for half of them, and the second's own PSS would say nothing."
    )
    for bar in found["bars"]:
        met = {True: "met", False: "NOT met", None: "cannot be told"}[bar["is_met"]]
        click.echo(f"{bar['what']}: {bar['value']:.2%}, under {bar['most']:.0%} demanded: {met}")
    for line in lines(found["machine"])[:2]:
        click.echo(line)
    if found["strangers"]:
        pids = ", ".join(map(str, found["strangers"]))
        click.echo(
            f"warning: other programs had the model's file mapped, too (process {pids}), and took their shares of the "
            "PSS; measure again without them"
        )


def _rows(memories: dict[str, dict[str, int]], idle: dict[str, float]) -> list[tuple[str, ...]]:
    """By process, and together what may be added; CPU time where it is known."""
    columns = ("pss", "rss", "private", "shared_clean", "shared_dirty")
    shares = {**idle, **({"together": sum(idle.values())} if idle else {})}
    rows = {name: {column: _mib(each[column]) for column in columns} for name, each in memories.items()}
    rows["together"] = {each: _mib(sum(memory[each] for memory in memories.values())) for each in ("pss", "private")}
    return [
        (name, f"{shares[name]:.3%}" if name in shares else "", *(row.get(column, "") for column in columns))
        for name, row in rows.items()
    ]


def _mib(nbytes: int) -> str:
    return f"{nbytes / _MIB:.1f}"
