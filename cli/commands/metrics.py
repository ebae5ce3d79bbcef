"""`slabwire metrics`: a running graph in Prometheus' text format."""

from __future__ import annotations

from typing import Any

import click

from ...runtime.control.verbs import Metrics
from ..rendering.choice import ask, name_argument, running_graph
from ..rendering.presentation import format_option, print_json, say


@click.command()
@name_argument
@click.option(
    "--listen",
    metavar="HOST:PORT",
    help="Serve them at http://HOST:PORT/metrics until Ctrl-C; a port of 0 takes a free one.",
)
@format_option
def command(name: str | None, listen: str | None, form: str) -> None:
    """Print counters, gauges and histograms of a running graph for Prometheus, or serve them."""
    from ...runtime.telemetry.metrics import families_of, metrics_text

    graph = running_graph(name)
    if listen is not None:
        _serve(graph, listen, form)
        return
    answer = ask(graph, Metrics())
    if form == "json":
        families = families_of(answer["status"], answer["durations"])
        print_json({"graph": graph, "metrics": [_plain(each) for each in families]})
    else:
        click.echo(metrics_text(answer), nl=False)


def _plain(family: Any) -> dict[str, Any]:
    samples = [
        {"name": family.name + suffix, "labels": dict(labels), "value": value}
        for suffix, labels, value in family.samples
    ]
    return {"name": family.name, "kind": family.kind, "meaning": family.meaning, "samples": samples}


def _serve(graph: str, listen: str, form: str) -> None:
    from ..scrape import MetricsServer

    host, colon, port = listen.rpartition(":")
    if not colon or not host or not port.isdecimal() or int(port) > 65535:
        raise click.BadParameter(f"{listen!r} is no HOST:PORT, such as 127.0.0.1:9100", param_hint="--listen")
    with MetricsServer(graph, host.strip("[]"), int(port)) as server:
        say(form, f"metrics of {graph}: {server.url}", event="listening", url=server.url)
        try:
            server.serve_forever()
        except KeyboardInterrupt:  # the usual end of serving
            return
