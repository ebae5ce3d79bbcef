"""`slabwire run`: starts a graph in the foreground and drains it on Ctrl-C."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from types import FrameType
from typing import TYPE_CHECKING

import click

from ...runtime.host import run_directory
from ...runtime.host.topology import Topology
from ...runtime.placement.plan import plan as plan_of
from ...runtime.spec import GraphSpec
from ..exits import Exit, GraphLost
from ..rendering.logfile import Line, echoed
from ..rendering.paint import Painter
from ..rendering.presentation import format_option
from ..rendering.voice import Voice
from ..target import TARGET_HELP, read_target, target_argument

if TYPE_CHECKING:
    from ...runtime.launch.running import Running


class _StopRequested(BaseException):  # not an Exception: nothing on the way may swallow it
    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.status = Exit.TERMINATED if number == signal.SIGTERM else Exit.INTERRUPTED


@click.command(epilog=TARGET_HELP)
@target_argument
@click.option("--name", help="Name of the running graph; by default the graph's own.")
@click.option("--listen", metavar="tcp://127.0.0.1:PORT", help="Also take calls over TCP at this address.")
@click.option(
    "--drain-timeout",
    type=click.FloatRange(min=0),
    default=10.0,
    show_default=True,
    metavar="SECONDS",
    help="How long work in flight may take to end when the graph is stopped.",
)
@click.option("--rebalance", is_flag=True, help="Move workers off a saturated core while another idles.")
@click.option("--plan/--no-plan", default=True, help="Print where each actor goes and why.")
@format_option
def command(
    target: str,
    *,
    name: str | None,
    listen: str | None,
    drain_timeout: float,
    rebalance: bool,
    plan: bool,
    form: str,
) -> int:
    """Run a graph until Ctrl-C (or SIGTERM): once drains it, twice stops it now."""
    if listen is not None and not listen.startswith("tcp://"):
        raise click.BadParameter(f"{listen!r} does not begin with tcp://", param_hint="--listen")
    if name is not None:
        _check_name(name)
    began = monotonic()
    voice = Voice(form)
    with _signals_as_exceptions():
        try:
            spec = read_target(target)
            run_directory.require_free(name or spec.name)
            if plan:
                planned = plan_of(spec, Topology.read())
                voice.say(f"{planned}\n", event="plan", **planned.to_plain())
            with _logs_echoed(name or spec.name, voice):
                return _run(spec, name, listen, drain_timeout, rebalance, voice, began)
        except _StopRequested as request:  # before the graph was ready: there is nothing to drain
            return request.status


def _check_name(name: str) -> None:
    from ...runtime.graph.node import NAME, NAME_RULE

    if not NAME.fullmatch(name):
        raise click.BadParameter(f"{name!r} must consist of {NAME_RULE}", param_hint="--name")


def _run(
    spec: GraphSpec,
    name: str | None,
    listen: str | None,
    drain_timeout: float,
    rebalance: bool,
    voice: Voice,
    began: float,
) -> int:
    from ...runtime.launch.running import start

    running = start(spec, drain_timeout_s=drain_timeout, listen=listen, name=name, rebalance=rebalance)
    try:
        _print_ready(running, spec, listen, monotonic() - began, voice)
        status = running.wait()
    except _StopRequested:
        return _drain(running, drain_timeout, voice)
    except BaseException:
        running.kill()
        raise
    lost = (
        f"graph {running.name!r} gave up: {running.failure}"
        if running.failure
        else f"the supervisor of graph {running.name!r} ended with status {status} and nobody had asked it to; "
        "what it logged stands above"
    )
    return _ended(running, status, voice, clean="stopped", lost=lost)


def _ended(running: Running, status: int | None, voice: Voice, *, clean: str, lost: str) -> int:
    """Says how the graph was stopped: `clean`, or what was cut off or did not end as it should. Raises GraphLost."""
    if status and status != Exit.UNCLEAN:
        raise GraphLost(lost)
    outcome = running.stopped
    text, document = (f"stopped: {outcome.text(running.name)}", outcome.to_plain()) if status else (clean, {})
    voice.say(f"{running.name} was {text}", event="stopped", graph=running.name, **document)
    return Exit.UNCLEAN if status else Exit.OK


@contextmanager
def _logs_echoed(name: str, voice: Voice) -> Iterator[None]:
    """Prints what the workers write, unless a graph of that name runs already: then those are not our workers."""
    painter = Painter()

    def say(line: Line) -> None:
        voice.say(painter.line(line, live=True), event="log", worker=line.worker, text=line.body)

    if name in run_directory.list_graphs():  # removes what a killed predecessor has left, too
        yield
        return
    with echoed(run_directory.graph_directory(name) / "logs", say):
        yield


def _drain(running: Running, drain_timeout: float, voice: Voice) -> int:
    text = f"draining {running.name} (at most {drain_timeout:g} s); Ctrl-C again stops it now"
    try:
        voice.say(text, event="draining", graph=running.name, drain_timeout_s=drain_timeout)
        status = running.stop()
    except _StopRequested as request:
        running.kill()
        voice.say(f"{running.name} was stopped before it was drained", event="killed", graph=running.name)
        return request.status
    lost = f"the supervisor of graph {running.name!r} ended with status {status} while it was drained"
    return _ended(running, status, voice, clean="drained and stopped", lost=lost)


def _print_ready(running: Running, spec: GraphSpec, listen: str | None, seconds: float, voice: Voice) -> None:
    from ...runtime.graph.compiled import Routing

    ports = [str(route.entry) for route in spec.routes[: spec.exposed]]
    lines = [f"{running.name} is ready in {seconds:.1f} s"]
    if ports:
        verb = "stream" if Routing(spec).streams(0) else "call"
        lines.append(f'  {verb} it{" " * (7 - len(verb))}slabwire.connect("{running.name}").{verb}("{ports[0]}", ...)')
        lines.append(f"  ports     {', '.join(ports)}")
    lines += [f"  listens   {listen}"] if listen else []
    lines.append(f"  look      slabwire top {running.name}")
    lines.append(f"  stop it   Ctrl-C, or slabwire stop {running.name}")
    about = {"graph": running.name, "seconds": round(seconds, 3), "ports": ports, "listen": listen}
    voice.say("\n".join(lines), event="ready", directory=str(running.directory), **about)


@contextmanager
def _signals_as_exceptions() -> Iterator[None]:
    """SIGINT and SIGTERM interrupt whatever the main thread does, each time they come."""

    def interrupt(number: int, _frame: FrameType | None) -> None:
        raise _StopRequested(number)

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
