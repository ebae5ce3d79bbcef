"""`slabwire plan`: where each actor goes, and why; on this machine, a recorded one, or in a graph that runs."""

from __future__ import annotations

from pathlib import Path

import click

from ...runtime.control.verbs import Describe
from ...runtime.errors import LoadError
from ...runtime.host.recorded_machine import read_machine, record_machine
from ...runtime.host.topology import Topology
from ...runtime.placement.machine_map import map_plain, map_text
from ...runtime.placement.plan import Plan, plan
from ..rendering.choice import ask, running_graph
from ..rendering.presentation import format_option, say
from ..target import TARGET_HELP, complete_target, read_target, runs

_FOLDER = click.Path(file_okay=False, path_type=Path)
_FILE = click.Path(dir_okay=False, writable=True, path_type=Path)


@click.command(epilog=TARGET_HELP)
@click.argument("target", required=False, shell_complete=complete_target)
@click.option("--running", is_flag=True, help="TARGET is the name of a running graph: show what it has come to.")
@click.option("--machine", type=_FOLDER, metavar="DIR", help="Plan for a recorded machine in place of this one.")
@click.option("--record", type=_FOLDER, metavar="DIR", help="Record this machine there, for --machine elsewhere.")
@click.option("--picture", type=_FILE, metavar="FILE.svg", help="Draw the plan there, too.")
@format_option
def command(
    target: str | None, *, running: bool, machine: Path | None, record: Path | None, picture: Path | None, form: str
) -> None:
    """Show where each actor goes on this machine, and why."""
    if record is not None:
        count = record_machine(record)
        say(form, f"recorded this machine in {record}: {count} files", recorded=str(record), files=count)
    if target is None:
        if record is None or machine is not None or picture is not None or running:
            raise click.UsageError("name a graph, as in `slabwire plan graph.py`")
        return
    if running and machine is not None:
        raise click.UsageError("--running shows a graph where it runs; leave out --machine")
    try:
        planned, topology = _running(target) if running else _planned(target, machine)
    except LoadError:
        if machine is not None or not runs(target):
            raise
        planned, topology = _running(target)
    if picture is not None:
        _draw(planned, topology, picture)
    text = f"{planned}\n\n{map_text(planned, topology)}"
    say(form, text, **planned.to_plain(), map=map_plain(planned, topology), topology=topology.to_plain())


def _planned(target: str, machine: Path | None) -> tuple[Plan, Topology]:
    topology = Topology.read() if machine is None else read_machine(machine)
    return plan(read_target(target), topology), topology


def _running(name: str) -> tuple[Plan, Topology]:
    described = ask(running_graph(name), Describe())
    return Plan.from_plain(described["plan"]), Topology.from_plain(described["topology"])


def _draw(planned: Plan, topology: Topology, path: Path) -> None:
    from ...runtime.placement.picture import picture

    if path.suffix != ".svg":
        raise click.BadParameter(f"{path} is no .svg, which is all that can be drawn", param_hint="--picture")
    path.write_text(picture(planned, topology), encoding="utf-8")
