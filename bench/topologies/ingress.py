"""Streamed chat answers on their way from a token source to the sockets of very many clients, beside other servers."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import click

from ...actors.ingress.certificates.development import development_certificate
from ..harness.load import Load, load_options, loads_of
from ..harness.measure import VISIT_WITHIN_S, Case, Cell, cells_of
from ..harness.medians import Medians
from ..harness.peers import Entry, importable
from ..harness.report import Report
from ..harness.settings import Settings, command_of
from ..ways.served_streams.figures import COLUMNS, TITLE
from ..ways.served_streams.visit import visit as visit_server

_LOADS_TEXT, _SECONDS = "100x5,1000x5", 5.0
_QUICK_LOAD, _QUICK_SECONDS = Load(20, 10.0), 0.5
_SERVERS: tuple[Entry, ...] = (
    ("served_streams.slabwire_ingress", "SlabwireIngress"),
    ("served_streams.uvicorn_server", "Uvicorn"),
    ("served_streams.uvloop_server", "UvicornUvloop"),
    ("served_streams.granian_server", "GranianServer"),
)
# A handshake takes both sides some 5 ms of two cores that others use, too.
_OPENS_WITHIN_S = 0.03
# An ingress that has nothing to say for 5 s says so, and what it says is no token.
_LEAST_PACE = 0.25


def measure_ingress(
    settings: Settings, *, streams: tuple[Load, ...] | None = None, seconds: float = _SECONDS, processes: int = 1
) -> Report:
    """What a token of a streamed chat answer costs on its way from its source to the sockets of very many clients,
    over TLS 1.3: CPU time of all processes of the server, as the kernel counts it.
    """
    loads = streams or ((_QUICK_LOAD,) if settings.quick else loads_of(_LOADS_TEXT))
    for each in loads:
        if each.pace < _LEAST_PACE:
            raise click.BadParameter(f"{each.text} are too few tokens; take {_LEAST_PACE:g} a second or more")
    seconds = min(seconds, _QUICK_SECONDS) if settings.quick else seconds
    servers, left_out = importable(_SERVERS)
    by_name = {each.name: each for each in servers}
    shown = Medians(COLUMNS, [(load, name) for load in loads for name in by_name])
    cases = {Case(f"{load.text}: CPU for a token", load.streams): load for load in loads}

    with TemporaryDirectory(prefix="slabwire-bench-") as folder:
        certificate = development_certificate(directory=Path(folder))

        def visit(cell: Cell) -> tuple[list[float], int]:
            load = cases[cell.case]
            figures = visit_server(by_name[cell.contestant], load, seconds, certificate, processes)
            shown.add(load, cell.contestant, figures)
            return [figures.cpu_us()], figures.tokens

        within_s = VISIT_WITHIN_S + _OPENS_WITHIN_S * max(each.streams for each in loads)
        results = settings.measure(cells_of(list(cases), list(by_name)), visit, within_s)
    report = Report("ingress", "as each case says", results, {each.name: each.title for each in servers})
    report.baselines = [name for name in by_name if name != servers[0].name]
    report.left_out = left_out
    report.figures = {"seconds": seconds, "processes": processes, "tokens": shown.plain()}
    report.tables = [shown.table(TITLE)]
    report.notes = [
        f"ERRORS: {each['contestant']} at {each['streams']:,} streams: tokens lost or wrong, or streams that have ended"
        for each in shown.plain()
        if each["errors"]
    ]
    return report


command = command_of(
    measure_ingress,
    rounds=5,
    extra=[
        *load_options(_LOADS_TEXT, _SECONDS),
        click.Option(
            ["--processes"],
            type=click.IntRange(1, 64),
            default=1,
            show_default=True,
            help="Of each server, that accept connections.",
        ),
    ],
)
