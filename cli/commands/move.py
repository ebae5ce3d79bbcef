"""`slabwire move`: other cores for an actor of a running graph."""

from __future__ import annotations

from typing import Any

import click

from ...runtime.control.verbs import Move, Status
from ...runtime.placement.plan import cpu_list
from ..rendering.choice import actor_names, ask, complete_actor, known_actor, running_graph
from ..rendering.presentation import format_option, print_json, print_table

_EPILOG = "CPUS is a list such as 1, 0-2 or 0,4; or `free`: cores on which no other worker is."


@click.command(options_metavar="[OPTIONS]", epilog=_EPILOG)
@click.argument("words", nargs=-1, required=True, metavar="[NAME] ACTOR CPUS", shell_complete=complete_actor)
@format_option
def command(words: tuple[str, ...], form: str) -> None:
    """Move an actor of a running graph to other CPUs, in the middle of its work; no message is lost."""
    from ...runtime.placement.moves import MoveError  # noqa: F401 - so that what the supervisor refuses with is known here

    if not 2 <= len(words) <= 3:
        raise click.UsageError("name an actor and its CPUs, as in `slabwire move scale 1`; a graph may stand first")
    graph = running_graph(words[0] if len(words) == 3 else None)
    actor = known_actor(graph, words[-2], actor_names(ask(graph, Status())))
    answer = ask(graph, Move(actor, words[-1]))
    if form == "json":
        print_json({"graph": graph, "actor": actor, **answer})
        return
    if not answer["changed"]:
        click.echo(f"{actor} is there already")
        return
    click.echo(_sentence(answer))
    click.echo()
    print_table(("worker", "CPUs", "spin", "why"), [_row(line) for line in answer["changed"]])


def _sentence(answer: dict[str, Any]) -> str:
    instances = answer["instances"]
    worker = answer["worker"]
    whole = f" with all its actors ({', '.join(instances)})" if len(instances) > 1 else ""
    return f"moved {worker}{whole} from CPU {cpu_list(tuple(answer['from']))} to {cpu_list(tuple(answer['to']))}"


def _row(line: dict[str, Any]) -> tuple[str, ...]:
    return line["name"], cpu_list(tuple(line["cores"])), "yes" if line["spin"] else "no", line["reason"]
