"""Which running graph, and which actor of it, a command means."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import click

from ...runtime.control.verbs import Status, Verb
from ...runtime.errors import Disconnected, SlabwireError
from ...runtime.host import run_directory
from ...runtime.spelling import near_or_all


class UnknownActor(SlabwireError):
    """A name that no actor of the graph has."""

    code = "unknown_actor"


def _complete_graph(_ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    return [name for name in graphs_for_completion() if name.startswith(incomplete)]


def graphs_for_completion() -> list[str]:
    """For whoever presses Tab: what is wrong with the run directory is said by the command itself."""
    try:
        return list(run_directory.list_graphs())
    except SlabwireError:
        return []


def complete_actor(ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """Graphs and the actors of the one that is meant, for a command that takes `[NAME] ACTOR`."""
    words = [*(ctx.params.get("words") or ()), *filter(None, [ctx.params.get("name")])]
    graphs = graphs_for_completion()
    meant = words[0] if words and words[0] in graphs else graphs[0] if len(graphs) == 1 else None
    possible = [*([] if words else graphs), *_actors_of(meant)]
    return [each for each in dict.fromkeys(possible) if each.startswith(incomplete)]


def _actors_of(graph: str | None) -> list[str]:
    """Asked briefly: whoever presses Tab waits."""
    try:
        return actor_names(ask(graph, Status(), 0.5)) if graph is not None else []
    except SlabwireError:
        return []


name_argument = click.argument("name", required=False, shell_complete=_complete_graph)


def running_graph(name: str | None) -> str:
    """The name of a running graph: the one given, else the only one.

    Raises Disconnected where it is not running, UsageError where several are and none was named.
    """
    graphs: list[str] = run_directory.list_graphs()
    if name is not None:
        if name not in graphs:
            there = f"{near_or_all(name, graphs)} (`slabwire ps` lists them)" if graphs else ", nor any other"
            raise Disconnected(f"no graph {name!r} is running{there}")
        return name
    if not graphs:
        raise Disconnected("no graph is running; start one with `slabwire run FILE`")
    if len(graphs) > 1:
        raise click.UsageError(f"several graphs are running, name one of them: {', '.join(graphs)}")
    return graphs[0]


def ask(graph: str, verb: Verb, within_s: float | None = None) -> dict[str, Any]:
    """What the supervisor of a running graph answers to one question; `within_s`: where it may take unusually long.

    Raises Disconnected, and what the supervisor refuses with.
    """
    from ...runtime.clients.control import ANSWER_WITHIN_S, Control

    with Control(graph, ANSWER_WITHIN_S if within_s is None else within_s) as control:
        return control.request(verb)


def actor_names(status: dict[str, Any]) -> list[str]:
    """What an actor may be called on the command line: its instances' names, and its own."""
    instances = [actor["name"] for worker in status["workers"] for actor in worker["actors"]]
    return list(dict.fromkeys([*instances, *map(base_name, instances)]))


def base_name(instance: str) -> str:
    """The actor of an instance: `scale` of `scale[2]`."""
    return instance.partition("[")[0]


def known_actor(graph: str, actor: str, names: Iterable[str]) -> str:
    """`actor`, if it is one of `names`; raises UnknownActor with the closest ones."""
    known = list(names)
    if actor not in known:
        raise UnknownActor(f"graph {graph!r} has no actor {actor!r}{near_or_all(actor, known)}")
    return actor
