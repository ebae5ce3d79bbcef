"""`slabwire graph`: the picture of a graph."""

from __future__ import annotations

import click

from ...runtime.errors import LoadError
from ...runtime.graph.mermaid import mermaid
from ...runtime.spec import GraphSpec
from ..rendering.presentation import format_option, say
from ..target import TARGET_HELP, read_running, read_target, runs, target_argument


@click.command(epilog=f"{TARGET_HELP} Where there is no such module, a running graph of that name.")
@target_argument
@click.option("--running", is_flag=True, help="TARGET is the name of a running graph: show it as it was started.")
@format_option
def command(target: str, *, running: bool, form: str) -> None:
    """Print a graph as a Mermaid flowchart, or all of it as JSON."""
    spec = read_running(target) if running else _read(target)
    say(form, mermaid(spec), **spec.to_plain())


def _read(target: str) -> GraphSpec:
    try:
        return read_target(target)
    except LoadError:
        if runs(target):
            return read_running(target)
        raise
