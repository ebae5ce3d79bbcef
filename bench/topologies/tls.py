"""TLS connections: what they cost a server, how soon they are answered, and what they hold; beside other servers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import click

from ...actors.ingress.certificates.certificate import Certificate
from ..harness.measure import Case, Cell
from ..harness.party import Party
from ..harness.peers import Entry, importable
from ..harness.report import Bar, Report, Table, number_text
from ..harness.settings import Settings, command_of
from ..ways.tls_servers.ingress_server import IngressServer
from ..ways.tls_servers.keys import KINDS, made
from ..ways.tls_servers.server import Server
from ..ways.tls_servers.visits import QUICK, Amounts, Figures, Visits

_SERVERS: tuple[Entry, ...] = (
    ("tls_servers.echo_servers", "EngineEcho"),
    ("tls_servers.ingress_server", "IngressServer"),
    ("tls_servers.nginx_server", "Nginx"),
    ("tls_servers.haproxy_server", "Haproxy"),
    ("tls_servers.echo_servers", "StdlibEcho"),
    ("tls_servers.uvicorn_server", "Uvicorn"),
    ("tls_servers.uvloop_server", "UvicornUvloop"),
    ("tls_servers.granian_server", "GranianServer"),
)
_BASELINES = ("nginx", "stdlib", "uvicorn_uvloop")
_KEEP_ALIVE, _DOWNLOAD = Case("request, kept alive: CPU", 0), Case("download: time for a MiB", 0)
_PUSH = Case("small write to one of many: CPU", 0)
# What is measured with one kind of key alone.
_USUAL_KEY = "ECDSA"
# Demanded of ours, beside a peer: the most times as much.
_BARS = (("engine", "nginx", 1.25), ("ingress", "uvicorn_uvloop", 1.0))
_MOST_OF_A_DOWNLOAD = 1 / 0.8
# Connections of those that are counted by whether they were resumed.
_COUNTED, _COUNTED_QUICKLY = 40, 8
_COLUMNS = {
    "cpu_us": (">CPU µs", 1.0),
    "first_byte_p50_us": (">first byte, p50 µs", 1.0),
    "first_byte_p90_us": (">p90 µs", 1.0),
    "resumed": (">resumed %", 100.0),
    "requests_a_second": (">requests a second", 1.0),
    "megabytes_a_second": (">MB/s", 1.0),
}

# Gives what is compared, in µs, and what else is shown.
Measure = Callable[[Visits], tuple[float, Figures]]


@dataclass
class _Bench:
    """What runs while it measures: every server once with each kind of key, and a client for each kind."""

    kinds: Sequence[type[Server]]
    amounts: Amounts
    round_trip_ms: float
    keys: Sequence[str]
    visits: dict[tuple[str, str], Visits] = field(default_factory=dict)
    shown: dict[Cell, list[Figures]] = field(default_factory=dict)

    @contextmanager
    def running(self, certificates: dict[str, Certificate]) -> Iterator[None]:
        with ExitStack() as stack:
            delay = self._delay(stack)
            for key, certificate in certificates.items():
                client = _client(stack, certificate)
                for kind in self.kinds:
                    server = stack.enter_context(kind(certificate, 1))
                    far_port = delay.ask("listen", server.port) if delay else 0
                    self.visits[key, kind.name] = Visits(server, client, self.amounts, far_port)
            yield

    def _delay(self, stack: ExitStack) -> Party | None:
        if not self.round_trip_ms:
            return None
        party = Party("ways.tls_servers.delay:Delay", round_trip_ms=self.round_trip_ms)
        stack.callback(party.close, now=True)
        return party

    def cases(self) -> dict[Case, tuple[str, Measure]]:
        """What is measured: with which key, and how."""
        found: dict[Case, tuple[str, Measure]] = {}
        for resumes, word in enumerate(("full", "resumed")):
            for key in self.keys:
                found[Case(f"{word} handshake, {key}: CPU", resumes)] = key, _handshakes(bool(resumes))
            if self.round_trip_ms:
                case = Case(f"{word} handshake, {self.round_trip_ms:g} ms away: first byte", resumes)
                found[case] = _USUAL_KEY, _far_handshakes(bool(resumes))
        found |= {_KEEP_ALIVE: (_USUAL_KEY, Visits.requests), _DOWNLOAD: (_USUAL_KEY, Visits.download)}
        return {**found, _PUSH: (_USUAL_KEY, Visits.pushes)}

    def cells(self) -> list[Cell]:
        """Nobody is asked for what it does not have."""
        asked = [(case, kind) for case in self.cases() for kind in self.kinds]
        return [Cell(case, kind.name) for case, kind in asked if _can(kind, case)]

    def visit(self, cell: Cell) -> tuple[list[float], int]:
        key, measure = self.cases()[cell.case]
        cost_us, figures = measure(self.visits[key, cell.contestant])
        self.shown.setdefault(cell, []).append(figures)
        return [cost_us], 1

    def figures(self) -> list[dict[str, Any]]:
        """Medians of the rounds."""
        return [
            {
                "case": cell.case.text,
                "contestant": cell.contestant,
                **{key: median(each[key] for each in some) for key in some[0]},
            }
            for cell, some in sorted(self.shown.items(), key=lambda each: self.cells().index(each[0]))
        ]


def measure_tls(settings: Settings, *, processes: int = 4, round_trip_ms: float = 0.0) -> Report:
    """What a TLS 1.3 connection costs a server, how soon it is answered and what it holds, beside other servers, which
    all answer with the same bytes. CPU time is that of all processes of the server, as the kernel counts it.
    """
    kinds, left_out = importable(_SERVERS)
    if settings.quick:
        bench = _Bench(kinds, QUICK, round_trip_ms, keys=[_USUAL_KEY])
    else:
        bench = _Bench(kinds, Amounts(), round_trip_ms, keys=list(KINDS))
    with TemporaryDirectory(prefix="slabwire-bench-") as folder:
        certificates = {key: made(key, Path(folder)) for key in bench.keys}
        with bench.running(certificates):
            results = settings.measure(bench.cells(), bench.visit)
        count = settings.few(_COUNTED, _COUNTED_QUICKLY)
        held = {kind.name: _held(kind, certificates[_USUAL_KEY], processes, count, bench.amounts) for kind in kinds}
    idle = {name: nbytes for name, (nbytes, _) in held.items()}
    resumed = {name: shares for name, (_, shares) in held.items()}
    titles = {each.name: each.title for each in kinds}
    report = Report("tls", "as each case says", results, titles, left_out=left_out)
    report.baselines = [each for each in _BASELINES if each in titles]
    report.bars = [*_bars(report), *_resumption_bars(resumed)]
    shown = bench.figures()
    report.figures = {"measured": shown, "idle_nbytes": idle, "processes": processes, "resumed": resumed}
    report.tables = [_figures_table(shown, titles), _held_table(titles, idle, resumed, processes)]
    return report


def _can(kind: type[Server], case: Case) -> bool:
    return kind.serves_large if case is _DOWNLOAD else kind.pushes if case is _PUSH else True


def _handshakes(resumes: bool) -> Measure:
    return lambda each: each.handshakes(resumes=resumes)


def _far_handshakes(resumes: bool) -> Measure:
    return lambda each: each.far_handshakes(resumes=resumes)


def _client(stack: ExitStack, certificate: Certificate) -> Party:
    party = Party("ways.tls_servers.client:Client", certificate=str(certificate.public))
    stack.callback(party.close, now=True)
    return party


def _held(
    kind: type[Server], certificate: Certificate, processes: int, count: int, amounts: Amounts
) -> tuple[float, dict[str, float]]:
    """Of a new server with several processes: bytes of an idle connection, and the share of connections that were
    resumed; by ours also after each process was killed.
    """
    with ExitStack() as stack:
        client = _client(stack, certificate)
        server = stack.enter_context(kind(certificate, processes))
        visits = Visits(server, client, amounts)
        nbytes, found = visits.idle_nbytes(), {"before": visits.resumed(count)}
        if isinstance(server, IngressServer):
            server.kill_each()
            found["after"] = visits.resumed(count)
        return nbytes, found


def _bars(report: Report) -> list[Bar]:
    found = []
    for case in {cell.case: None for cell in report.results}:
        if case.text.endswith("ECDSA: CPU"):
            for ours, peer, most in _BARS:
                ratio = report.ratio(case, ours, peer)
                if ratio is not None:
                    found.append(Bar(f"{case.text}, {ours} / {peer}", ratio, most=most))
    ratio = report.ratio(_DOWNLOAD, "engine", "nginx")
    return found if ratio is None else [*found, Bar("download, engine / nginx", ratio, most=_MOST_OF_A_DOWNLOAD)]


def _resumption_bars(resumed: dict[str, dict[str, float]]) -> list[Bar]:
    shares = resumed.get(IngressServer.name, {})
    return [Bar(f"resumed, {when} kill -9 of each", share, least=1.0, percent=True) for when, share in shares.items()]


def _figures_table(figures: Sequence[dict[str, Any]], titles: dict[str, str]) -> Table:
    rows = []
    for each in figures:
        shown = (number_text(each[key] * times) if key in each else "-" for key, (_, times) in _COLUMNS.items())
        rows.append((each["case"].partition(":")[0], titles[each["contestant"]], *shown))
    heads = ("case", "contestant", *(head for head, _ in _COLUMNS.values()))
    return Table("medians of the rounds; the first byte from the beginning of the connection", heads, rows)


def _held_table(
    titles: dict[str, str], idle: dict[str, float], resumed: dict[str, dict[str, float]], processes: int
) -> Table:
    rows = [
        (
            title,
            number_text(idle[name] / 1024),
            f"{resumed[name]['before']:.0%}",
            f"{resumed[name]['after']:.0%}" if "after" in resumed[name] else "-",
        )
        for name, title in titles.items()
    ]
    heads = ("contestant", ">KiB, idle", f">resumed by {processes}", ">after kill -9 of each")
    return Table("an idle connection, and tickets that another process has given", heads, rows)


command = command_of(
    measure_tls,
    rounds=7,
    extra=[
        click.Option(
            ["--processes"],
            type=click.IntRange(1, 64),
            default=4,
            show_default=True,
            help="Of each server, where resumed connections are counted.",
        ),
        click.Option(
            ["--round-trip-ms"],
            type=click.FloatRange(min=0, max=1000),
            default=0.0,
            show_default=True,
            help="Also measure over a network that is so far: a proxy delays what travels.",
        ),
    ],
)
