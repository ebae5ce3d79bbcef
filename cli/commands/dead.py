"""`slabwire dead`: the messages that killed their actor as often as it allows."""

from __future__ import annotations

from typing import Any

import click

from ...runtime.control.verbs import DeadLetters
from ..rendering.choice import ask, name_argument, running_graph
from ..rendering.presentation import format_option, print_json, print_table, time_text


@click.command()
@name_argument
@format_option
def command(name: str | None, form: str) -> None:
    """List the dead messages of a running graph, with the reason of each."""
    graph = running_graph(name)
    letters = ask(graph, DeadLetters())["dead"]
    if form == "json":
        print_json({"graph": graph, "dead": letters})
    elif letters:
        keys = list(dict.fromkeys(key for letter in letters for key in letter))
        print_table([_head(key) for key in keys], [[_cell(key, letter.get(key)) for key in keys] for letter in letters])
    else:
        click.echo(f"{graph} has no dead messages")


def _head(key: str) -> str:
    return "when" if key == "unix_s" else key.replace("_", " ")


def _cell(key: str, value: Any) -> str:
    if value is None:
        return "-"
    if key == "unix_s":
        return time_text(value)
    return str(value)
