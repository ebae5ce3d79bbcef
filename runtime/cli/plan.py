"""`slabwire plan`: where each actor goes on this machine, and why."""

from __future__ import annotations

import click

from .presentation import format_option, print_json
from .target import TARGET_HELP, read_target, target_argument


@click.command(epilog=TARGET_HELP)
@target_argument
@format_option
def command(target: str, form: str) -> None:
    """Show where each actor goes on this machine, and why."""
    from ..placement import plan
    from ..topology import Topology

    topology = Topology.read()
    planned = plan(read_target(target), topology)
    if form == "json":
        print_json({**planned.to_plain(), "topology": topology.to_plain()})
    else:
        click.echo(str(planned))
