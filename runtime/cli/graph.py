"""`slabwire graph`: the picture of a graph."""

from __future__ import annotations

import click

from .mermaid import mermaid
from .presentation import format_option, print_json
from .target import TARGET_HELP, read_target, target_argument


@click.command(epilog=TARGET_HELP)
@target_argument
@format_option
def command(target: str, form: str) -> None:
    """Print a graph as a Mermaid flowchart, or all of it as JSON."""
    spec = read_target(target)
    if form == "json":
        print_json(spec.to_plain())
        return
    click.echo(mermaid(spec))
