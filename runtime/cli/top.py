"""`slabwire top`: what each actor of a running graph does."""

from __future__ import annotations

from collections.abc import Iterator
from time import sleep, time
from typing import TYPE_CHECKING, Any

import click

from .choice import name_argument, running_graph
from .presentation import console, format_option, print_json, print_table, table
from .sample import ACTOR_HEADS, PROCESS_HEADS, Sample, actor_rows, headline, process_rows

if TYPE_CHECKING:
    from ..control import Control


@click.command()
@name_argument
@click.option("--once", is_flag=True, help="Print one table and end; rates are those since the start.")
@click.option(
    "--interval",
    type=click.FloatRange(min=0.1),
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="Time between two refreshes.",
)
@format_option
def command(name: str | None, once: bool, interval: float, form: str) -> None:
    """Show what each actor does: rates, waiting messages, latencies, memory; Ctrl-C ends it."""
    from ..control import Control

    with Control(running_graph(name)) as control:
        if once:
            _print(_sample(control, None), form)
            return
        try:
            _watch(control, interval, form)
        except KeyboardInterrupt:  # the usual end of watching
            return


def _sample(control: Control, previous: Sample | None) -> Sample:
    return Sample(control.request("status"), time(), previous)


def _samples(control: Control, interval: float) -> Iterator[Sample]:
    sample = _sample(control, None)
    while True:
        yield sample
        sleep(interval)
        sample = _sample(control, sample.without_previous())


def _print(sample: Sample, form: str) -> None:
    if form == "json":
        print_json(sample.to_plain())
        return
    click.echo(headline(sample))
    click.echo()
    print_table(ACTOR_HEADS, actor_rows(sample))
    click.echo()
    print_table(PROCESS_HEADS, process_rows(sample))


def _watch(control: Control, interval: float, form: str) -> None:
    if form == "json":
        for sample in _samples(control, interval):
            print_json(sample.to_plain())
        return
    from rich.live import Live

    screen = console()
    with Live(console=screen, auto_refresh=False, screen=screen.is_terminal) as live:
        for sample in _samples(control, interval):
            live.update(_picture(sample), refresh=True)


def _picture(sample: Sample) -> Any:
    from rich.console import Group

    actors = table(ACTOR_HEADS, actor_rows(sample))
    return Group(headline(sample), "", actors, "", table(PROCESS_HEADS, process_rows(sample)))
