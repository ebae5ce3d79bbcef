"""The picture of `slabwire top`: one line an actor, with as many columns as fit. No I/O; time is in the sample."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ...runtime.placement.plan import cpu_list
from .presentation import bytes_text, count_text, micros_text
from .sample import EDGE_HEADS, Sample, edge_rows

_LEVELS = "▁▂▃▄▅▆▇█"
# From here on an actor has little time left, and a lane little room.
_BUSY, _SATURATED = 0.6, 0.9
_TREND_LOOKS = 16
# Of the columns of an edge, which go first where the screen is narrow.
_EDGE_RANKS = {"refused": 9, "expired": 8, "most": 7, "for": 6, "rejected": 5, "when full": 4, "sent": 3}

Cell = tuple[str, str]  # the text, and its style


@dataclass(frozen=True)
class Line:
    """One actor instance of a sample; `first` is the one that shows what its worker has but once."""

    sample: Sample
    worker: dict[str, Any]
    actor: dict[str, Any]
    first: bool
    trend: Sequence[float] = ()

    @property
    def name(self) -> str:
        return str(self.actor["name"])

    def change_of_worker(self, key: str) -> float:
        """By how much a counter of the worker has grown since the look before, or since the start."""
        previous = self.sample.previous.status["workers"] if self.sample.previous else []
        before = next((each[key] for each in previous if each["name"] == self.worker["name"]), 0)
        now = self.worker[key]
        return float(now - before if now >= before else now)


@dataclass(frozen=True)
class Column:
    """`rank` says what is left out first where the screen is narrow: the highest."""

    head: str
    rank: int
    cell: Callable[[Line], Cell]
    right: bool = True


def _name(line: Line) -> Cell:
    state, name = line.worker["state"], line.name
    text = name if name == line.worker["name"] else f"{name} in {line.worker['name']}"
    return (text, "bold") if state == "ready" else (f"{text} ({state})", "bold red" if state == "stopped" else "yellow")


def _queue(line: Line) -> Cell:
    waiting, actor = line.actor["waiting"], line.name.partition("[")[0]
    edges = line.sample.status["edges"]
    is_full = any(edge["full"] and edge["target"].partition(".")[0] == actor for edge in edges)
    return count_text(waiting), "bold red" if is_full else "" if waiting else "dim"


def _busy(line: Line) -> Cell:
    busy = line.sample.busy(line.name)
    style = "red" if busy >= _SATURATED else "yellow" if busy >= _BUSY else "green"
    return f"{busy:.0%}", style if busy >= 0.005 else "dim"


def _waits(line: Line) -> Cell:
    """Waits a second that ended while polling, and sleeps a second."""
    per_s = [line.change_of_worker(key) / line.sample.elapsed_s for key in ("spins", "parks")]
    return "/".join(_short(each) for each in per_s), "" if any(per_s) else "dim"


def _short(count: float) -> str:
    return f"{count:.0f}" if count < 10_000 else f"{count / 1e3:.0f}k" if count < 1e6 else f"{count / 1e6:.0f}M"


def _rate(line: Line) -> Cell:
    rate = line.sample.rate(line.name)
    return f"{rate:.1f}" if rate < 1000 else count_text(round(rate)), "" if rate else "dim"


def _of_worker(cell: Callable[[Line], Cell]) -> Callable[[Line], Cell]:
    """What all actors of a worker share stands in its first line."""
    return lambda line: cell(line) if line.first else ("", "")


def _count(key: str, alarming: str = "") -> Callable[[Line], Cell]:
    def cell(line: Line) -> Cell:
        count = line.actor.get(key, 0)
        return count_text(count), alarming if count else "dim"

    return cell


def _dropped(line: Line) -> Cell:
    """What went no further on purpose, whatever for."""
    count = sum(line.actor.get(key, 0) for key in ("dropped", "expired", "cancelled", "dead"))
    return count_text(count), "yellow" if count else "dim"


def _in_flight(line: Line) -> Cell:
    """Plain handlers have none."""
    return _of(line.actor.get("in_flight", 0), line.actor.get("places", 0))


def _of(count: int, most: int) -> Cell:
    """A count and its limit, which is shown from half of it on."""
    if 2 * count < most or not count:
        return count_text(count), "" if count else "dim"
    return f"{count_text(count)}/{count_text(most)}", "bold red" if count >= most else "yellow"


def _oldest(line: Line) -> Cell:
    age_s = line.actor.get("oldest_s", 0.0)
    return _tight(micros_text(age_s * 1e6)), "" if age_s else "dim"


def _tight(text: str) -> str:
    """Without the blank before the unit, and without the second letter of it."""
    return text.replace(" ", "").replace("iB", "")


COLUMNS = (
    Column("actor", 0, _name, right=False),
    Column("core", 6, _of_worker(lambda line: (cpu_list(tuple(line.worker["cores"])), "cyan")), right=False),
    Column("rate/s", 1, _rate),
    Column("trend", 14, lambda line: (spark(line.trend), "green"), right=False),
    Column("queue", 2, _queue),
    Column("in flight", 15, _in_flight),
    Column("p50", 4, lambda line: (_tight(micros_text(line.actor["p50_us"])), "")),
    Column("p99", 5, lambda line: (_tight(micros_text(line.actor["p99_us"])), "")),
    Column("busy", 3, _busy),
    Column("spin/park", 9, _of_worker(_waits)),
    Column("↻", 7, _of_worker(lambda line: _alarm(line.worker["restarts"]))),
    Column("leases", 10, _count("leases")),
    Column("outbox", 11, _count("outbox", "yellow")),
    Column("memory", 8, _of_worker(lambda line: (_tight(bytes_text(line.worker["pss_bytes"])), ""))),
    Column("slabs", 18, _of_worker(lambda line: (_slabs(line.worker), ""))),
    Column("CPU", 12, _of_worker(lambda line: (f"{line.sample.cpu(line.worker):.0%}", ""))),
    Column("handled", 16, _count("handled")),
    Column("failed", 13, _count("failed", "red")),
    Column("dropped", 17, _dropped),
    Column("starved", 20, _count("starved", "yellow")),
    Column("oldest", 21, _oldest),
    Column("calls", 22, _of_worker(lambda line: _of(line.worker.get("calls", 0), line.worker.get("most_calls", 0)))),
    Column("pid", 19, _of_worker(lambda line: (str(line.worker["pid"] or "-"), "dim"))),
)
SORTS: dict[str, Callable[[Line], Any]] = {
    "graph": lambda _: 0,  # as the graph has them
    "rate": lambda line: -line.sample.rate(line.name),
    "busy": lambda line: -line.sample.busy(line.name),
    "queue": lambda line: -line.actor["waiting"],
    "p99": lambda line: -(line.actor["p99_us"] or 0),
}


def _alarm(count: int) -> Cell:
    return str(count), "yellow" if count else "dim"


def _slabs(worker: dict[str, Any]) -> str:
    return f"{_tight(bytes_text(worker['slab_used_bytes']))}/{_tight(bytes_text(worker['slab_bytes']))}"


def lines_of(sample: Sample, trends: dict[str, list[float]] | None = None) -> list[Line]:
    """A line for each actor instance, in the order of the graph."""
    return [
        Line(sample, worker, actor, number == 0, (trends or {}).get(actor["name"], ()))
        for worker in sample.status["workers"]
        for number, actor in enumerate(worker["actors"])
    ]


def spark(values: Sequence[float]) -> str:
    """The last values as a line of little bars, the highest as high as can be."""
    top = max(values, default=0.0)
    if not top:
        return "".join(_LEVELS[0] for _ in values)
    return "".join(_LEVELS[round(each / top * (len(_LEVELS) - 1))] for each in values)


def remember(trends: dict[str, list[float]], sample: Sample) -> None:
    """Adds the rates of a sample to what the sparks show."""
    for line in lines_of(sample):
        rates = trends.setdefault(line.name, [])
        rates.append(sample.rate(line.name))
        del rates[:-_TREND_LOOKS]


def fitting(widths: Sequence[int], ranks: Sequence[int], room: int) -> list[int]:
    """The numbers of the columns that fit beside each other, one blank between; the lowest ranks are kept."""
    kept: list[int] = []
    for number in sorted(range(len(widths)), key=lambda each: ranks[each]):
        if sum(widths[each] + 1 for each in (*kept, number)) - 1 <= room:
            kept.append(number)
        elif kept:
            break  # what ranks higher is not shown without what ranks lower
    return sorted(kept)


def actor_table(lines: Sequence[Line], room: int) -> Any:
    """A `rich.table.Table` of all actors, no wider than `room`; a spark that nobody has the history for is left out."""
    columns = [each for each in COLUMNS if each.head != "trend" or any(line.trend for line in lines)]
    rows = [[column.cell(line) for column in columns] for line in lines]
    return fitted_table(
        [each.head for each in columns], [each.right for each in columns], [each.rank for each in columns], rows, room
    )


def edge_table(sample: Sample, room: int, *, every: bool) -> Any | None:
    """Edges that have something to tell, or all of them; None where there is none."""
    plain = edge_rows(sample, every=every)
    if not plain:
        return None
    heads = [each.removeprefix(">") for each in EDGE_HEADS]
    rows = [[(text, "") for text in row] for row in plain]
    ranks = [_EDGE_RANKS.get(head, 0 if head == "edge" else 1) for head in heads]
    return fitted_table(heads, [each.startswith(">") for each in EDGE_HEADS], ranks, rows, room)


def fitted_table(
    heads: Sequence[str], right: Sequence[bool], ranks: Sequence[int], rows: Sequence[Sequence[Cell]], room: int
) -> Any:
    """A `rich.table.Table` no wider than `room`, with as many columns as fit: the highest `ranks` go first."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    widths = [
        max(len(head), *(len(row[at][0]) for row in rows)) if rows else len(head) for at, head in enumerate(heads)
    ]
    kept = fitting(widths, ranks, room)
    table = Table(box=box.SIMPLE_HEAD, padding=0, show_edge=False, header_style="bold")
    for at in kept:
        table.add_column(heads[at], justify="right" if right[at] else "left", no_wrap=True)
    for row in rows:
        table.add_row(*(Text(*row[at]) for at in kept))
    return table
