"""`slabwire stop`: drains a running graph and waits until it is gone."""

from __future__ import annotations

import os
import select
from time import monotonic

import click

from ..errors import SlabwireError
from .choice import name_argument, running_graph
from .presentation import format_option, print_json

# What a supervisor may take beyond the drain itself: ending workers one after another, removing its directory.
GRACE_S = 10.0


class StillRunning(SlabwireError):
    """A graph that was told to stop and did not."""

    code = "deadline"


@click.command()
@name_argument
@click.option(
    "--drain-timeout",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="How long work in flight may take to end; by default as long as the graph was started with.",
)
@click.option("--now", is_flag=True, help="Do not drain: the same as --drain-timeout 0.")
@click.option("--wait/--no-wait", default=True, show_default=True, help="Wait until the graph is gone.")
@format_option
def command(name: str | None, drain_timeout: float | None, now: bool, wait: bool, form: str) -> None:
    """Drain a running graph and stop it."""
    graph = running_graph(name)
    began = monotonic()
    pid = _stop(graph, 0.0 if now else drain_timeout, wait)
    seconds = monotonic() - began
    if form == "json":
        print_json({"graph": graph, "pid": pid, "stopped": wait, "seconds": round(seconds, 3)})
    else:
        click.echo(f"{graph} (pid {pid}) stopped in {seconds:.1f} s" if wait else f"{graph} (pid {pid}) is stopping")


def _stop(graph: str, drain_timeout: float | None, wait: bool) -> int:
    from ..control import Control

    with Control(graph) as control:
        pid: int = control.request("status")["pid"]
        # Opened before the request, so that it is this process whose end we wait for and not a later one of its number.
        process = os.pidfd_open(pid)
        try:
            arguments = {} if drain_timeout is None else {"drain_timeout_s": drain_timeout}
            control.request("stop", **arguments)
            if wait:
                _wait(process, graph, pid, drain_timeout)
        finally:
            os.close(process)
    return pid


def _wait(process: int, graph: str, pid: int, drain_timeout: float | None) -> None:
    poll = select.poll()
    poll.register(process, select.POLLIN)
    # Without a time of our own the supervisor's holds, which we do not know: it ends by itself.
    limit_ms = None if drain_timeout is None else (drain_timeout + GRACE_S) * 1000
    if not poll.poll(limit_ms):
        raise StillRunning(f"graph {graph!r} (pid {pid}) still runs after its drain time; `kill -9 {pid}` ends it")
