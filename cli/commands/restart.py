"""`slabwire restart`: a fresh process for one actor; its messages wait for it."""

from __future__ import annotations

from math import inf
from typing import Any

import click

from ...runtime.control.verbs import Restart, Status
from ...runtime.errors import StartError
from ..rendering.choice import actor_names, ask, complete_actor, known_actor, running_graph
from ..rendering.presentation import format_option, print_json
from .stop import drain_timeout_option, now_option


@click.command(options_metavar="[OPTIONS]")
@click.argument("words", nargs=-1, required=True, metavar="[NAME] ACTOR", shell_complete=complete_actor)
@drain_timeout_option
@now_option
@click.option("--wait/--no-wait", default=True, show_default=True, help="Wait until the successor is ready.")
@format_option
def command(words: tuple[str, ...], drain_timeout: float | None, now: bool, wait: bool, form: str) -> None:
    """Restart an actor (all its replicas, one after the other), or one replica, of a running graph.

    It ends what it has begun, for as long as it may drain; then a fresh process imports its code anew. Messages wait
    for it, and none is lost. What is cut off is begun again; a stream that was sent in part ends with `interrupted`.
    """
    if len(words) > 2:
        raise click.UsageError(f"one graph and one actor, not {len(words)} words: {' '.join(words)}")
    graph = running_graph(words[0] if len(words) == 2 else None)
    actor = known_actor(graph, words[-1], actor_names(ask(graph, Status())))
    # The supervisor knows how long it may take, and its end is noticed.
    answer = ask(graph, Restart(actor, 0.0 if now else drain_timeout, wait), within_s=inf)
    workers = answer.get("workers", [])
    if form == "json":
        print_json({"graph": graph, "actor": actor, **answer})
    elif wait:
        for each in workers:
            if not each["error"]:
                click.echo(_told(graph, each))
    else:
        click.echo(f"restarting {', '.join(answer['restarted'])} of {graph}")
    failed = [f"{each['worker']} of {graph}: {each['error']}" for each in workers if each["error"]]
    if failed:
        raise StartError("; ".join(failed))


def _told(graph: str, worker: dict[str, Any]) -> str:
    pids = f"pid {worker['before']} to {worker['pid']}" if worker["before"] else f"pid {worker['pid']}"
    ended = f"{_inputs(worker['drained'])} ended before" if worker["drained"] else "nothing was in flight"
    cut = f", {_inputs(worker['cut_off'])} cut off" if worker["cut_off"] else ""
    if cut and not worker["drained"]:
        ended, cut = cut.removeprefix(", "), ""
    return f"{worker['worker']} of {graph} was restarted in {worker['seconds']:.1f} s ({pids}): {ended}{cut}"


def _inputs(count: int) -> str:
    return f"{count} input{'s' if count != 1 else ''} in flight"
