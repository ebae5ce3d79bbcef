"""`slabwire logs`: what the workers of a graph and its supervisor wrote."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterable
from datetime import datetime
from pathlib import Path
from time import monotonic, sleep, time

import click

from ...runtime.control.verbs import Status
from ...runtime.errors import Disconnected, SlabwireError
from ...runtime.host import run_directory
from ...runtime.spelling import near_or_all
from ..rendering.choice import ask, base_name, complete_actor, known_actor, name_argument, running_graph
from ..rendering.crashes import show_crashes
from ..rendering.logfile import LOOK_EVERY_S, Line, LogFolder, log_paths
from ..rendering.paint import Painter
from ..rendering.presentation import format_option, print_json

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
LIVENESS_EVERY_S = 1.0

Wanted = Callable[[Line], bool]


def _since(_ctx: click.Context, _parameter: click.Parameter, value: str | None) -> float | None:
    """Unix seconds from "10s", "5m", "2h", "1d" (ago) or an ISO date and time (UTC unless it says otherwise)."""
    if value is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", value)
    if match:
        return time() - float(match[1]) * UNITS[match[2]]
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        raise click.BadParameter(f"{value!r} is neither like 10s, 5m, 2h, 1d nor an ISO date and time") from None
    return (moment if moment.tzinfo else datetime.fromisoformat(f"{moment.isoformat()}+00:00")).timestamp()


def _pattern(_ctx: click.Context, _parameter: click.Parameter, value: str | None) -> re.Pattern[str] | None:
    try:
        return None if value is None else re.compile(value)
    except re.error as error:
        raise click.BadParameter(f"{value!r} is not a regular expression: {error}") from None


@click.command()
@name_argument
@click.argument("actors", nargs=-1, metavar="[ACTOR]...", shell_complete=complete_actor)
@click.option("--follow", "-f", is_flag=True, help="Go on printing what is written, until the graph ends or Ctrl-C.")
@click.option("--since", callback=_since, metavar="10s|5m|2h|1d|TIME", help="Only what was written since then.")
@click.option("--grep", callback=_pattern, metavar="REGEX", help="Only lines in which this is found.")
@click.option(
    "--tail", type=click.IntRange(min=0), metavar="LINES", help="Only the last ones; --follow goes on from there."
)
@click.option("--crash", is_flag=True, help="The latest crash report, also of a graph that has ended.")
@click.option("--all", is_flag=True, help="With --crash: a line of each report that is kept.")
@format_option
def command(
    name: str | None,
    actors: tuple[str, ...],
    follow: bool,
    since: float | None,
    grep: re.Pattern[str] | None,
    tail: int | None,
    crash: bool,
    all: bool,  # noqa: A002 - it names the variable, too
    form: str,
) -> None:
    """Print the logs of a graph, by time; of all its workers and the supervisor, or of the ACTORs named."""
    if crash:
        if follow or since is not None or grep is not None or tail is not None:
            raise click.UsageError("--crash prints a report, no log: it goes with --all and --format only")
        show_crashes(name, actors, every=all, form=form)
        return
    if all:
        raise click.UsageError("--all goes with --crash")

    def wanted(line: Line) -> bool:
        recent = since is None or (line.unix_s or 0.0) >= since
        return recent and (grep is None or any(map(grep.search, (line.text, line.body))))

    graph, folder = _folder(name)
    workers = _workers(graph, folder, actors) if actors else None
    with LogFolder(folder, workers) as logs:
        say = _printer(form, alone=workers is not None and len(workers) == 1)
        lines = filter(wanted, logs.read(final=not follow))
        say(lines if tail is None else deque(lines, maxlen=tail))
        if follow:
            _follow(graph, logs, wanted, say)


def _folder(name: str | None) -> tuple[str, Path]:
    """The logs of a graph that is running, or was killed and has not been cleaned up yet.

    Looks before it lists graphs, since that removes what nobody locks.
    """
    if name is None:
        name = running_graph(None)
    folder = run_directory.graph_directory(name) / "logs"
    if not run_directory.is_private(run_directory.base_directory()) or not folder.is_dir():
        graphs = run_directory.list_graphs()
        there = near_or_all(name, graphs) if graphs else "; no graph is running"
        raise Disconnected(f"there are no logs of a graph {name!r}{there}")
    return name, folder


def _workers(graph: str, folder: Path, actors: tuple[str, ...]) -> set[str]:
    """The workers whose logs hold what the actors wrote; raises UnknownActor."""
    homes: dict[str, set[str]] = {}
    for worker in (path.stem for path in log_paths(folder)):
        homes.setdefault(worker, set()).add(worker)
        homes.setdefault(base_name(worker), set()).add(worker)
    if any(actor not in homes for actor in actors):
        _add_shared(homes, graph)
    return {worker for actor in actors for worker in homes[known_actor(graph, actor, homes)]}


def _add_shared(homes: dict[str, set[str]], graph: str) -> None:
    """Actors that share a worker are not named by its file; only the running graph knows them."""
    try:
        workers = ask(graph, Status())["workers"]
    except SlabwireError:
        return
    for worker in workers:
        for actor in worker["actors"]:
            for alias in (actor["name"], base_name(actor["name"])):
                homes.setdefault(alias, set()).add(worker["name"])


def _printer(form: str, *, alone: bool) -> Callable[[Iterable[Line]], None]:
    painter = Painter()

    def say(lines: Iterable[Line]) -> None:
        for line in lines:
            if form == "json":
                print_json({"worker": line.worker, "unix_s": line.unix_s, "text": line.body})
            else:
                click.echo(painter.line(line, alone=alone))

    return say


def _follow(graph: str, logs: LogFolder, wanted: Wanted, say: Callable[[Iterable[Line]], None]) -> None:
    look_again = 0.0
    try:
        while True:
            if monotonic() >= look_again:
                if graph not in run_directory.list_graphs():
                    break
                look_again = monotonic() + LIVENESS_EVERY_S
            say(filter(wanted, logs.read()))
            sleep(LOOK_EVERY_S)
    except KeyboardInterrupt:  # the usual end of following
        return
    say(filter(wanted, logs.read(final=True)))
    click.echo(f"graph {graph!r} has ended", err=True)
