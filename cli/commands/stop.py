"""`slabwire stop`: drains a running graph and waits until it is gone."""

from __future__ import annotations

import os
import select
from math import inf
from time import monotonic

import click

from ...runtime.control.verbs import Status, StopGraph
from ...runtime.errors import Disconnected, SlabwireError
from ...runtime.postmortem.stopped import Stopped
from ..exits import Exit
from ..rendering.choice import name_argument, running_graph
from ..rendering.presentation import format_option, print_json

# What a supervisor may take beyond the drain itself: ending workers one after another, removing its directory.
GRACE_S = 10.0


class StillRunning(SlabwireError):
    """A graph that was told to stop and did not."""

    code = "deadline"


drain_timeout_option = click.option(
    "--drain-timeout",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="How long work in flight may take to end; by default as long as the graph was started with.",
)
now_option = click.option("--now", is_flag=True, help="Do not drain: the same as --drain-timeout 0.")


@click.command()
@name_argument
@drain_timeout_option
@now_option
@click.option("--wait/--no-wait", default=True, show_default=True, help="Wait until the graph is gone.")
@format_option
def command(name: str | None, drain_timeout: float | None, now: bool, wait: bool, form: str) -> int:
    """Drain a running graph and stop it."""
    graph = running_graph(name)
    began = monotonic()
    pid, outcome = _stop(graph, 0.0 if now else drain_timeout, wait)
    seconds = monotonic() - began
    if form == "json":
        print_json({"graph": graph, "pid": pid, "stopped": wait, "seconds": round(seconds, 3), **outcome.to_plain()})
    elif wait:
        undone = "" if outcome.is_clean else f": {outcome.text(graph)}"
        click.echo(f"{graph} (pid {pid}) stopped in {seconds:.1f} s{undone}")
    else:
        click.echo(f"{graph} (pid {pid}) is stopping")
    return Exit.OK if outcome.is_clean else Exit.UNCLEAN


def _stop(graph: str, drain_timeout: float | None, wait: bool) -> tuple[int, Stopped]:
    """The supervisor's pid, and how the graph has stopped."""
    from ...runtime.clients.control import Control

    with Control(graph) as control:
        pid: int = control.request(Status())["pid"]
        # Opened before the request, so that it is this process whose end we wait for and not a later one of its number.
        process = os.pidfd_open(pid)
        try:
            if not wait:
                control.request(StopGraph(drain_timeout))
                return pid, Stopped()
            # Without a time of our own the supervisor's holds, which we do not know: it ends by itself.
            within_s = inf if drain_timeout is None else drain_timeout + GRACE_S
            until = monotonic() + within_s
            try:
                outcome = Stopped.from_plain(control.request(StopGraph(drain_timeout, wait=True), within_s=within_s))
            except Disconnected:  # a supervisor that was killed has no last word
                outcome = Stopped()
            _wait(process, graph, pid, max(0.0, until - monotonic()))
        finally:
            os.close(process)
    return pid, outcome


def _wait(process: int, graph: str, pid: int, within_s: float) -> None:
    poll = select.poll()
    poll.register(process, select.POLLIN)
    if not poll.poll(None if within_s == inf else within_s * 1000):
        raise StillRunning(f"graph {graph!r} (pid {pid}) still runs after its drain time; `kill -9 {pid}` ends it")
