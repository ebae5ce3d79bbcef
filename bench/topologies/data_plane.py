"""All topologies of the data plane, one after the other."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import click

from ..harness.rival_options import against_option

TOPOLOGIES = (
    "ping_pong",
    "one_to_one",
    "fan_out",
    "forward",
    "parked",
    "actor_call",
    "async_calls",
    "idle",
    "start",
    "false_sharing",
    "scaling",
)


@click.command()
@click.option("--quick", is_flag=True, help="Short rounds: whether all of them work.")
@click.option("--folder", type=click.Path(file_okay=False, path_type=Path), help="Write each document there.")
@against_option
@click.pass_context
def command(ctx: click.Context, quick: bool, folder: Path | None, against: Path | None) -> None:
    """Runs every topology of the data plane, one after the other."""
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(TOPOLOGIES):
        if number:
            click.echo()
        topology: click.Command = import_module(f".{name}", __package__).command
        arguments = ["--quick"] if quick else []
        if folder is not None:
            arguments += ["--output", str(folder / f"{name}.json")]
        if against is not None and any(option.name == "against" for option in topology.params):
            arguments += ["--against", str(against)]
        with topology.make_context(name, arguments, parent=ctx) as inner:
            topology.invoke(inner)
