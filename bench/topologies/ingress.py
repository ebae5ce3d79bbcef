"""Streamed chat answers on their way from a token source to the sockets of very many clients, beside other servers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click

from ...actors.ingress.certificates.certificate import Certificate
from ...actors.ingress.certificates.development import development_certificate
from ..harness.load import Load, load_options, loads_of
from ..harness.measure import VISIT_WITHIN_S, Case, Cell, Measurement, Results, cells_of
from ..harness.medians import Medians, percentile
from ..harness.peers import Entry, importable
from ..harness.report import Bar, Report
from ..harness.settings import Settings, command_of
from ..ways.served_streams.figures import COLUMNS, TITLE
from ..ways.served_streams.server import Server
from ..ways.served_streams.visit import Figures, visit, visit_first_tokens, visit_rates

_LOADS_TEXT, _SECONDS = "100x5,1000x5", 5.0
_RISING_TEXT = "10000x1,10000x2,10000x4,10000x5,10000x6,10000x7"
_QUICK_LOADS, _QUICK_SECONDS = (Load(20, 10.0),), 0.5
_QUICK_RISING = (Load(20, 10.0), Load(20, 20.0))
# Streams that run while others begin, and how many of these a second.
_RUNNING, _BEGIN_A_SECOND, _QUICK_BEGIN_A_SECOND = Load(1000, 1.0), 10.0, 40.0
# Ours first, then those whose tokens come from another process as ours do, then those that make them themselves.
_SERVERS: tuple[Entry, ...] = (
    ("served_streams.slabwire_ingress", "SlabwireIngress"),
    ("served_streams.uvicorn_server", "Uvicorn"),
    ("served_streams.uvloop_server", "UvicornUvloop"),
    ("served_streams.granian_server", "GranianServer"),
    ("served_streams.uvicorn_server", "UvicornInside"),
    ("served_streams.uvloop_server", "UvicornUvloopInside"),
    ("served_streams.granian_server", "GranianInside"),
    ("served_streams.ssl_write_loop", "SslWriteLoop"),
)
_OURS = "slabwire"
# A handshake takes both sides some 5 ms of two cores that others use, too.
_OPENS_WITHIN_S = 0.03
# Beside the seconds that are measured: to warm up, until nothing more comes, and what comes late.
_BESIDE_WITHIN_S = 40.0
# An ingress that has nothing to say for 5 s says so, and what it says is no token.
_LEAST_PACE = 0.25

# Demanded of ours: the most times the CPU time of a peer with the same source.
_CPU_BARS = (
    (Load(100, 5.0), "uvicorn", 0.6),
    (Load(100, 5.0), "uvicorn_uvloop", 0.6),
    (Load(1000, 5.0), "granian", 0.8),
)
# And with very many streams by two processes.
_MANY, _MANY_PROCESSES = Load(10_000, 4.0), 2
_MANY_BARS: Sequence[tuple[str, str, float, float]] = (
    ("errors", "errors", 1.0, 0.0),
    ("p99 from source to client, ms", "latency_p99_us", 1e3, 80.0),
    ("cores", "cores", 1.0, 1.3),
    ("KiB a stream, serving processes", "serving_nbytes_a_stream", 1024.0, 24.0),
)
_FIRST_TOKEN_MS = 120.0

# Measures a server once: samples, and how many answers were checked.
_Visit = Callable[[type[Server]], tuple[list[float], int]]


@dataclass
class _Bench:
    """What is measured of which servers; `shown` has the figures beside what is compared."""

    servers: Sequence[type[Server]]
    loads: Sequence[Load]
    seconds: float
    processes: int
    certificate: Certificate
    shown: Medians[Figures] = field(init=False)

    def __post_init__(self) -> None:
        self.shown = Medians(COLUMNS, [(load, each.name) for load in self.loads for each in self.servers])

    def visit_load(self, load: Load) -> _Visit:
        """CPU time of a token."""

        def measure(kind: type[Server]) -> tuple[list[float], int]:
            figures = visit(kind, load, self.seconds, self.certificate, self.processes)
            self.shown.add(load, kind.name, figures)
            return [figures.cpu_us()], figures.tokens

        return measure

    def visit_rising(self, loads: Sequence[Load]) -> _Visit:
        """Latency at one rate after the other, p99 of each."""

        def measure(kind: type[Server]) -> tuple[list[float], int]:
            found = visit_rates(kind, loads, self.seconds, self.certificate, self.processes)
            for each in found:
                self.shown.add(each.load, kind.name, each)
            return [_p99_us(each) for each in found], sum(each.tokens for each in found)

        return measure

    def visit_first(self, load: Load, a_second: float) -> _Visit:
        """Until the first token, of all requests."""

        def measure(kind: type[Server]) -> tuple[list[float], int]:
            found = visit_first_tokens(kind, load, a_second, self.seconds, self.certificate, self.processes)
            return found, len(found)

        return measure

    def measured(self, settings: Settings, visits: dict[Case, _Visit], briefly: Case | None = None) -> Results:
        """Every server in every case; in the case `briefly` those that have short answers."""
        by_name = {each.name: each for each in self.servers}
        cells = [
            each
            for each in cells_of(list(visits), list(by_name))
            if each.case != briefly or by_name[each.contestant].answers_briefly
        ]
        streams = max([each.streams for each in self.loads] + [_RUNNING.streams])
        each_s = self.seconds + _BESIDE_WITHIN_S
        within_s = VISIT_WITHIN_S + _OPENS_WITHIN_S * streams + each_s * len(self.loads)
        return settings.measure(cells, lambda cell: visits[cell.case](by_name[cell.contestant]), within_s)


def measure_ingress(
    settings: Settings,
    *,
    streams: tuple[Load, ...] | None = None,
    seconds: float = _SECONDS,
    processes: int = 1,
    servers: tuple[str, ...] = (),
    knee: bool = False,
) -> Report:
    """What a token of a streamed chat answer costs on its way from its source to the sockets of very many clients,
    over TLS 1.3: CPU time of all processes of the server, as the kernel counts it. Then how soon the first token of a
    new answer comes while 1,000 streams run.

    In a step each stream gets a token. More than 1,000 streams are in batches, as several engines decode them: these
    have their steps one after the other, evenly spread over the time of a step.

    With --knee how late tokens come as there are more and more of them, up to the rate that a server does not keep up
    with.
    """
    if knee and (settings.rival is not None or settings.visited is not None):
        raise click.UsageError("--knee goes by itself: leave out --against")
    usual = loads_of(_RISING_TEXT if knee else _LOADS_TEXT)
    loads = streams or ((_QUICK_RISING if knee else _QUICK_LOADS) if settings.quick else usual)
    for each in loads:
        if each.pace < _LEAST_PACE:
            raise click.BadParameter(f"{each.text} are too few tokens; take {_LEAST_PACE:g} a second or more")
    seconds = min(seconds, _QUICK_SECONDS) if settings.quick else seconds
    kinds, left_out = importable(_SERVERS)
    kinds = _chosen(kinds, servers)
    with TemporaryDirectory(prefix="slabwire-bench-") as folder:
        certificate = development_certificate(directory=Path(folder))
        bench = _Bench(kinds, sorted(loads, key=_rate) if knee else loads, seconds, processes, certificate)
        report = _rising(settings, bench) if knee else _costs(settings, bench)
    report.left_out = left_out
    shown = bench.shown.plain()
    report.figures = {"seconds": seconds, "processes": processes, "tokens": shown}
    report.tables = [bench.shown.table(TITLE)]
    report.notes += [
        f"ERRORS: {each['contestant']} at {each['streams']:,} streams: tokens lost or wrong, or streams that have ended"
        for each in shown
        if each["errors"]
    ]
    return report


def _chosen(kinds: Sequence[type[Server]], names: Sequence[str]) -> list[type[Server]]:
    unknown = set(names) - {each.name for each in kinds}
    if unknown:
        known = ", ".join(each.name for each in kinds)
        raise click.BadParameter(f"{', '.join(sorted(unknown))} cannot take part; there are {known}")
    return [each for each in kinds if not names or each.name in names]


# -- what tokens cost, and how soon the first comes --------------------------------------------------------------------


def _costs(settings: Settings, bench: _Bench) -> Report:
    running = _QUICK_LOADS[0] if settings.quick else _RUNNING
    a_second = _QUICK_BEGIN_A_SECOND if settings.quick else _BEGIN_A_SECOND
    first = Case(f"{running.text} and {a_second:g} new answers/s: first token", running.streams)
    visits = {Case(f"{load.text}: CPU for a token", load.streams): bench.visit_load(load) for load in bench.loads}
    results = bench.measured(settings, {**visits, first: bench.visit_first(running, a_second)}, briefly=first)
    report = Report("ingress", "as each case says", results, {each.name: each.title for each in bench.servers})
    report.baselines = [each.name for each in bench.servers if each.name != _OURS]
    report.bars = [*_cpu_bars(report), *_many_bars(bench), *_first_bars(report, first)]
    return report


def _cpu_bars(report: Report) -> list[Bar]:
    found = []
    for load, peer, most in _CPU_BARS:
        ratio = report.ratio(Case(f"{load.text}: CPU for a token", load.streams), _OURS, peer)
        if ratio is not None:
            found.append(Bar(f"{load.text}: CPU for a token, {_OURS} / {peer}", ratio, most=most))
    return found


def _many_bars(bench: _Bench) -> list[Bar]:
    figures = bench.shown.of(_MANY, _OURS)
    if figures is None or bench.processes != _MANY_PROCESSES:
        return []
    return [
        Bar(f"{_MANY.text}, {_MANY_PROCESSES} processes: {what}", figures[key] / unit, most=most)
        for what, key, unit, most in _MANY_BARS
    ]


def _first_bars(report: Report, first: Case) -> list[Bar]:
    measured = report.results.get(Cell(first, _OURS))
    if measured is None or first.x != _RUNNING.streams:
        return []
    return [Bar(f"{first.text}, p50, ms", measured.median / 1e3, most=_FIRST_TOKEN_MS)]


# -- the rate that is too much -----------------------------------------------------------------------------------------


def _rising(settings: Settings, bench: _Bench) -> Report:
    """A case for each number of streams, which are opened once; the report has one for each rate."""
    alike = [tuple(some) for _, some in groupby(bench.loads, key=lambda each: each.streams)]
    visits = {Case(f"{some[0].streams:,} streams", some[0].streams): bench.visit_rising(some) for some in alike}
    bench.measured(settings, visits)
    titles = {each.name: each.title for each in bench.servers}
    results = {
        Cell(_case_of(load, several=len(alike) > 1), name): _measured(figures)
        for (load, name), figures in bench.shown.all.items()
        if figures
    }
    report = Report("ingress", "from the source's step to the client's read, p99", results, titles)
    report.notes = [_told(title, name, some, bench.shown) for some in alike for name, title in titles.items()]
    return report


def _case_of(load: Load, *, several: bool) -> Case:
    """In a plot, where these stand close together, a rate is short."""
    tokens = load.streams * load.pace
    rate = f"{tokens / 1e3:g}k/s" if tokens >= 1e3 else f"{tokens:g}/s"
    return Case(f"{load.streams:,}: {rate}" if several else rate, tokens)


def _measured(visits: Sequence[Figures]) -> Measurement:
    found = Measurement()
    for each in visits:
        found.add([_p99_us(each)], each.tokens)
    return found


def _told(title: str, name: str, loads: Sequence[Load], shown: Medians[Figures]) -> str:
    """Up to which rate a server has kept up in every round."""
    kept = [load for load in loads if (some := shown.all[load, name]) and all(each.is_in_time for each in some)]
    streams = f"{title}, {loads[0].streams:,} streams"
    if not kept:
        return f"{streams}: not even {loads[0].pace:g}/s came in time"
    most = kept[-1]
    above = "the highest rate that was tried" if most is loads[-1] else "and not at the next rate"
    return f"{streams}: all came in time at {most.pace:g}/s, {_rate(most)[1]:,.0f} tokens a second, {above}"


def _rate(load: Load) -> tuple[int, float]:
    return load.streams, load.streams * load.pace


def _p99_us(figures: Figures) -> float:
    return percentile(figures.latencies_us, 0.99) or 0.0


def _names(_context: Any, _option: Any, text: str | None) -> tuple[str, ...]:
    return tuple(each.strip() for each in text.split(",")) if text else ()


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
        click.Option(
            ["--servers"],
            metavar="NAME,...",
            callback=_names,
            help="Which take part.  [default: all]",
        ),
        click.Option(
            ["--knee"],
            is_flag=True,
            help=f"Raise the rate until it is too much; streams: {_RISING_TEXT}.",
        ),
    ],
)
