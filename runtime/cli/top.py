"""`slabwire top`: what each actor of a running graph does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from time import sleep, time
from typing import TYPE_CHECKING, Any

import click

from .choice import name_argument, running_graph
from .presentation import console, format_option, print_json, print_table, table
from .sample import ACTOR_HEADS, EDGE_HEADS, PROCESS_HEADS, Sample, actor_rows, edge_rows, headline, process_rows

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
@click.option("--edges", is_flag=True, help="Show all edges, also those that were never full.")
@format_option
def command(name: str | None, once: bool, interval: float, edges: bool, form: str) -> None:
    """Show what each actor does: rates, waiting messages, latencies, memory; Ctrl-C ends it."""
    from ..control import Control

    with Control(running_graph(name)) as control:
        if once:
            _print(_sample(control, None), form, edges=edges)
            return
        try:
            _watch(control, interval, form, edges=edges)
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


def _tables(sample: Sample, *, edges: bool) -> list[tuple[Sequence[str], list[tuple[str, ...]]]]:
    """Heads and rows of each table; that of edges only where it has rows."""
    tables: list[tuple[Sequence[str], list[tuple[str, ...]]]] = [
        (ACTOR_HEADS, actor_rows(sample)),
        (EDGE_HEADS, edge_rows(sample, every=edges)),
        (PROCESS_HEADS, process_rows(sample)),
    ]
    return [each for each in tables if each[1]]


def _print(sample: Sample, form: str, *, edges: bool) -> None:
    if form == "json":
        print_json(sample.to_plain())
        return
    click.echo(headline(sample))
    for heads, rows in _tables(sample, edges=edges):
        click.echo()
        print_table(heads, rows)


def _watch(control: Control, interval: float, form: str, *, edges: bool) -> None:
    if form == "json":
        for sample in _samples(control, interval):
            print_json(sample.to_plain())
        return
    from rich.live import Live

    screen = console()
    with Live(console=screen, auto_refresh=False, screen=screen.is_terminal) as live:
        for sample in _samples(control, interval):
            live.update(_picture(sample, edges=edges), refresh=True)


def _picture(sample: Sample, *, edges: bool) -> Any:
    from rich.console import Group

    parts = [part for heads, rows in _tables(sample, edges=edges) for part in ("", table(heads, rows))]
    return Group(headline(sample), *parts)
