"""`slabwire restart`: a fresh process for one actor; its messages wait for it."""

from __future__ import annotations

import click

from .choice import actor_names, complete_actor, known_actor, running_graph
from .presentation import format_option, print_json


@click.command(options_metavar="[OPTIONS]")
@click.argument("words", nargs=-1, required=True, metavar="[NAME] ACTOR", shell_complete=complete_actor)
@format_option
def command(words: tuple[str, ...], form: str) -> None:
    """Restart an actor (all its replicas), or one replica, of a running graph; no message is lost."""
    from ..control import Control

    if len(words) > 2:
        raise click.UsageError(f"one graph and one actor, not {len(words)} words: {' '.join(words)}")
    graph = running_graph(words[0] if len(words) == 2 else None)
    with Control(graph) as control:
        actor = known_actor(graph, words[-1], actor_names(control.request("status")))
        answer = control.request("restart", actor=actor)
    if form == "json":
        print_json({"graph": graph, "actor": actor, **answer})
    else:
        click.echo(f"restarting {', '.join(answer['restarted'])} of {graph}")
