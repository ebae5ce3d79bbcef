"""`slabwire trace`: what a running graph has done lately, as a file for Perfetto."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ...runtime.control.verbs import Events, Hello
from ...runtime.errors import SlabwireError
from ..rendering.choice import ask, name_argument, running_graph
from ..rendering.presentation import format_option, say

if TYPE_CHECKING:
    from ...runtime.telemetry.trace import Flight


class NothingRecorded(SlabwireError):
    """No event is left of what was asked for."""

    code = "nothing_recorded"


class CannotWrite(SlabwireError):
    """The file for the trace cannot be written."""

    code = "cannot_write"


@click.command()
@name_argument
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), help="The file. [default: NAME-trace.json]")
@click.option("--last", type=click.FloatRange(min=0, min_open=True), metavar="SECONDS", help="Only what is not older.")
@click.option("--request", type=int, metavar="NUMBER", help="Only this request, by its number (context.request).")
@click.option("--trace-id", metavar="HEX", help="Only this request, by its trace id or the beginning of it.")
@format_option
def command(
    name: str | None, output: Path | None, last: float | None, request: int | None, trace_id: str | None, form: str
) -> None:
    """Write what the actors of a running graph have handled lately to a file for ui.perfetto.dev or chrome://tracing.

    A track for each actor, a slice for each message handled, an arrow for each message sent. Each worker remembers its
    last 4096 messages, also those of processes that died.
    """
    from ...runtime.telemetry.trace import TraceDocument, chosen, settled
    from ...shm.bell import now_ns

    graph = running_graph(name)
    since = now_ns() - int(last * 1e9) if last is not None else 0
    trace = trace_id.lower() if trace_id is not None else None
    ports = _ports(graph)
    whole = [settled(each, now_ns()) for each in _flights(graph)]
    flights = [chosen(each, request=request, trace=trace, since_ns=since) for each in whole]
    if not any(flight.events for flight in flights):
        raise NothingRecorded(
            f"no recorder of graph {graph!r} holds such an event; each worker keeps its last 4096 messages: ask for "
            "more with --last, look whether number or trace id are right, or trace sooner after the call"
        )
    drawn = TraceDocument(graph, flights, ports)
    path = output or Path(f"{graph}-trace.json")
    _write(path, drawn.document)
    counts = {"slices": drawn.slices, "arrows": drawn.arrows, "workers": [each.worker for each in flights]}
    text = f"{path}: {drawn.slices} slices, {drawn.arrows} arrows; open it at https://ui.perfetto.dev"
    say(form, text, graph=graph, file=str(path), **counts)


def _ports(graph: str) -> list[str]:
    from ...runtime.graph.compiled import Routing
    from ...runtime.spec import graph_from_plain

    return [str(port) for port in Routing(graph_from_plain(ask(graph, Hello())["spec"])).ports]


def _flights(graph: str) -> list[Flight]:
    """One request for each worker, so that no answer is large."""
    from ...runtime.telemetry.flight_recorder import Event, events_of
    from ...runtime.telemetry.trace import Flight

    flights = []
    for worker in ask(graph, Events())["workers"]:
        answer = ask(graph, Events(worker))
        running = [Event(*each) for each in answer["running"]]
        flights.append(Flight(worker, answer["instances"], [*events_of(answer["rows"]), *running]))
    return flights


def _write(path: Path, document: dict[str, object]) -> None:
    try:
        path.write_text(json.dumps(document))
    except OSError as error:
        raise CannotWrite(f"{path} cannot be written ({error.strerror}); name another file with --output") from None
