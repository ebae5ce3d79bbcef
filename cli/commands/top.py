"""`slabwire top`: what each actor of a running graph does."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from time import monotonic, sleep, time
from typing import TYPE_CHECKING, Any

import click

from ...runtime.control.verbs import Status
from ..ingresses import Ingresses
from ..rendering.board import SORTS, actor_table, edge_table, lines_of, remember
from ..rendering.choice import name_argument, running_graph
from ..rendering.ingress_board import ingress_table, silent_ingresses
from ..rendering.presentation import bytes_text, console, format_option, print_json, print_picture
from ..rendering.sample import Sample, headline
from ..rendering.screen import Screen

if TYPE_CHECKING:
    from ...runtime.clients.control import Control


FIRST_S = 0.3


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
    """Show what each actor does: rates, waiting messages, latencies, memory.

    Live in a terminal; keys: q quits, s sorts by another column, e shows all edges, p pauses.
    """
    from ...runtime.clients.control import Control

    with Control(running_graph(name)) as control, closing(Ingresses(control)) as ingresses:
        look = partial(_sample, control, ingresses)
        if once:
            _print(look(), form, edges=edges)
            return
        try:
            _watch(look, interval, form, edges=edges)
        except KeyboardInterrupt:  # the usual end of watching
            return


def _sample(control: Control, ingresses: Ingresses, previous: Sample | None = None) -> Sample:
    """A look at the graph; what came before `previous` is forgotten."""
    told = ingresses.look()
    return Sample(control.request(Status()), time(), previous and replace(previous, previous=None), told)


def _print(sample: Sample, form: str, *, edges: bool) -> None:
    if form == "json":
        print_json(sample.to_plain())
        return
    screen = console()
    print_picture(screen, _picture(sample, View(edges=edges), screen.width))


def _watch(look: Callable[..., Sample], interval: float, form: str, *, edges: bool) -> None:
    screen = console()
    if form == "text" and screen.is_terminal:
        _watch_live(look, interval, screen, View(edges=edges))
        return
    sample = look()
    while True:
        _print(sample, form, edges=edges)
        sleep(interval)
        sample = look(sample)


@dataclass
class View:
    """What the keys have chosen."""

    edges: bool = False
    paused: bool = False
    sort: str = "graph"
    trends: dict[str, list[float]] = field(default_factory=dict)

    def press(self, key: str) -> bool:
        """False where it means the end."""
        if key == "s":
            names = list(SORTS)
            self.sort = names[(names.index(self.sort) + 1) % len(names)]
        elif key == "e":
            self.edges = not self.edges
        elif key == "p":
            self.paused = not self.paused
        return key not in ("q", "\x04")


def _watch_live(look: Callable[..., Sample], interval: float, console: Any, view: View) -> None:
    with Screen(console) as screen, screen.signals():
        sample = look()
        until = monotonic() + min(interval, FIRST_S)  # rates since the start are soon replaced
        while True:
            screen.draw(_live_picture(sample, view, console))
            if not view.press(screen.key_within(until - monotonic())):
                return
            if monotonic() >= until:
                until = monotonic() + interval
                if not view.paused:
                    sample = look(sample)
                    remember(view.trends, sample)


def _live_picture(sample: Sample, view: View, console: Any) -> Any:
    from rich.console import Group
    from rich.text import Text

    edges, pause = "telling" if view.edges else "all", "go on" if view.paused else "pause"
    said = f"q quit  s sort ({view.sort})  e {edges} edges  p {pause}"
    return Group(_picture(sample, view, console.width), Text(said, style="reverse" if view.paused else "dim"))


def _gateway(gateway: dict[str, Any] | None) -> str:
    """Its part of the last line: nothing where there is none."""
    if gateway is None:
        return ""
    state = "" if gateway["state"] == "ready" else f", {gateway['state']}"
    restarts = f", ↻ {gateway['restarts']}" if gateway["restarts"] else ""
    many = gateway.get("turned_out", 0)  # not told by graphs that an older version runs
    turned_out = f", {many} turned out" if many else ""
    return f"; gateway: pid {gateway['pid'] or '-'}{state}{restarts}{turned_out}"


def _picture(sample: Sample, view: View, room: int) -> Any:
    from rich.console import Group
    from rich.text import Text

    lines = sorted(lines_of(sample, view.trends), key=SORTS[view.sort])
    edges = edge_table(sample, room, every=view.edges)
    supervisor = sample.status["supervisor"]
    nursery = sample.status["nursery"]
    last = f"supervisor: pid {supervisor['pid']}, CPU {sample.cpu(None):.0%}, {bytes_text(supervisor['pss_bytes'])}"
    last += f"; nursery: pid {nursery['pid'] or '-'}, {bytes_text(nursery['pss_bytes'])}"
    last += _gateway(sample.status["gateway"])
    ingresses = ingress_table(sample.ingresses, sample.taken_unix_s, room)
    tables = [actor_table(lines, room), *(each for each in (ingresses, edges) if each is not None)]
    parts = [Text(headline(sample)), "", *(part for each in tables for part in (each, ""))]
    parts += [Text(each, style="dim") for each in silent_ingresses(sample.ingresses)]
    return Group(*parts, Text(last, style="dim"))
