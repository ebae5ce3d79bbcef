"""What a message carries: each value arrives the same, or is refused in the same words, whatever way it takes."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import slabwire
from slabwire import Graph
from values_stage import Emitter, Probe, Sender
from values_table import KINDS, PLACES, Refused, described, made

Way = Callable[[str, str], str]
CLIENTS = ("embedded", "tcp", "in process", "same host, async", "tcp, async")


def graph_of_senders() -> Graph:
    graph = Graph("values")
    probe, sender, emitter = graph.add(Probe), graph.add(Sender), graph.add(Emitter)
    graph.connect(sender.forward, probe.hear)
    graph.connect(emitter.sent, probe.hear)
    graph.expose(probe.tell, sender.answer, sender.answer_late, sender.answer_many, sender.items, sender.calls)
    graph.expose(sender.forward, emitter.emits)
    return graph


class Ways:
    """All that a value may take, each a function of its kind and place which gives a description of what arrived.

    `arguments` are sent by this process, or by an actor that calls; of the others the sender is an actor.
    """

    def __init__(self, clients: dict[str, Any], async_clients: dict[str, Any], runner: asyncio.Runner) -> None:
        self.arguments: dict[str, Way] = {}
        self.outputs: dict[str, Way] = {}
        for name, client in clients.items():
            self._add(name, client.call, partial(_items, client))
        for name, client in async_clients.items():
            self._add(name, _run(runner, client.call), _run(runner, partial(_async_items, client)))

    def _add(self, name: str, call: Callable[..., Any], items: Callable[..., list[Any]]) -> None:
        self.arguments[name] = lambda *what: str(call("probe.tell", made(*what)))
        self.arguments[f"actor's call, {name}"] = lambda *what: str(call("sender.calls", *what))
        self.outputs[f"answer, {name}"] = lambda *what: described(call("sender.answer", *what))
        self.outputs[f"late answer, {name}"] = lambda *what: described(call("sender.answer_late", *what))
        self.outputs[f"batch, {name}"] = lambda *what: described(call("sender.answer_many", list(what)))
        self.outputs[f"edge, {name}"] = lambda *what: str(call("sender.forward", *what))
        self.outputs[f"emit, {name}"] = lambda *what: str(call("emitter.emits", *what))
        self.outputs[f"stream, {name}"] = lambda *what: described(*items("sender.items", *what))


def _items(client: Any, *asked: Any) -> list[Any]:
    return list(client.stream(*asked))


async def _async_items(client: Any, *asked: Any) -> list[Any]:
    return [item async for item in client.stream(*asked)]


def _run(runner: asyncio.Runner, call: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *args: runner.run(call(*args))


@pytest.fixture
def ways(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ways]:
    monkeypatch.setenv("SLABWIRE_RUN_DIR", str(tmp_path_factory.mktemp("run")))
    address = f"tcp://127.0.0.1:{free_port()}"
    with (
        asyncio.Runner() as runner,
        graph_of_senders().run(listen=address) as running,
        graph_of_senders().run(in_process=True, name="here") as here,
        slabwire.connect(address) as remote,
    ):
        sync = {"embedded": running.client, "tcp": remote, "in process": here.client}
        opened = {
            "same host, async": runner.run(_opened("values")),
            "tcp, async": runner.run(_opened(address)),
        }
        yield Ways(sync, opened, runner)
        for client in opened.values():
            runner.run(client.close())


async def _opened(where: str) -> Any:
    return await slabwire.connect_async(where).__aenter__()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def outcome_of(way: Way, kind: str, place: str) -> str:
    try:
        return way(kind, place)
    except slabwire.MessageError as error:
        return str(error)


def wrong_outcomes(ways: Ways, kind: str, place: str, takes: Callable[[str], bool]) -> Iterator[str]:
    """What a value became by ways that should not have made that of it."""
    arrives = KINDS[kind].arrives
    _, received, path = PLACES[place]
    if isinstance(arrives, Refused):
        refusal = f"{path}{arrives.text}"
        argument, output = rf"message\['value'\]{refusal}", rf"(sender|emitter)\.\w+ cannot send this: message{refusal}"
    else:
        value = KINDS[kind].make() if arrives is None else arrives
        argument = output = re.escape(described(received(value))) + "$"
    for pattern, group in ((argument, ways.arguments), (output, ways.outputs)):
        for name in filter(takes, group):
            outcome = outcome_of(group[name], kind, place)
            if not re.match(pattern, outcome, re.DOTALL):
                yield f"{kind} {place}, {name}: {outcome[:300]!r} is not {pattern[:300]!r}"


def is_plain_way(name: str) -> bool:
    """Whether it is one that others are made of: each client with arguments and answers, each output of an actor."""
    return name in CLIENTS or name.startswith("answer, ") or name.endswith(", embedded")


def is_short_way(name: str) -> bool:
    """Whether it is one of the few that differ in how they pack."""
    return name in ("embedded", "tcp", "answer, tcp")


def check_all(ways: Ways, takes: Callable[[str, str], Callable[[str], bool]]) -> None:
    wrong: list[str] = []
    for kind, about in KINDS.items():
        for place in PLACES if about.at_any_depth else ("alone",):
            if (kind, place) != ("None", "alone"):  # which ends a request
                wrong.extend(wrong_outcomes(ways, kind, place, takes(kind, place)))
    assert not wrong, f"{len(wrong)} of them\n" + "\n".join(wrong[:40])


def few_ways(kind: str, place: str) -> Callable[[str], bool]:
    """Dtypes are named in one place, and what lies deeper is packed by the same hands."""
    if kind.startswith("array of "):
        return is_short_way if place in ("alone", "beside a large array") else lambda _: False
    return is_plain_way if place == "alone" else is_short_way


def test_a_value_arrives_or_is_refused_the_same_by_every_way(ways: Ways) -> None:
    check_all(ways, few_ways)


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_a_value_arrives_or_is_refused_the_same_by_every_way_from_every_client(ways: Ways) -> None:
    check_all(ways, lambda _, __: lambda _: True)


@dataclass(frozen=True, slots=True)
class Counted:
    """A dataclass with a field that its constructor does not take."""

    name: str
    seen: int = field(init=False, default=0)
    inner: Counted | None = None


def shown(it: Counted, others: list[Counted]) -> str:
    return f"{it} {others}"


def test_a_dataclass_is_built_anew_with_all_that_it_had(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SLABWIRE_RUN_DIR", str(tmp_path / "run"))
    it = Counted("a", Counted("b"))
    object.__setattr__(it, "seen", 5)
    object.__setattr__(it.inner, "seen", 6)
    graph = Graph("counted")
    graph.expose(graph.add(shown))
    with graph.run() as running:
        assert running.client.call("shown.shown", it, [it]) == f"{it} {[it]}"
