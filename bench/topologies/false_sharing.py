"""What two writers of one cache line cost each other, and that no layout of ours makes any pay it."""

from __future__ import annotations

import os
from collections.abc import Iterable
from mmap import mmap
from time import perf_counter_ns
from typing import Any

import numpy as np

from ...shm.layout import LINE_NBYTES, all_layouts, prove
from ..harness.contestant import BenchError, Seats
from ..harness.echo import EchoProcess, Order
from ..harness.measure import Case, Cell, cells_of
from ..harness.report import Report
from ..harness.settings import Settings, command_of, pinned

_PAGE = 4096
_WORD_NBYTES = 8
# Bytes between the two words; "alone": the other process does nothing.
_CASES = (
    Case("one writer alone", 1),
    Case("two writers, one line of 64 bytes", 8),
    Case("two writers, one pair of lines", 64),
    Case("two writers, 128 bytes apart", 128),
)
_ALONE, _APART = _CASES[0], _CASES[-1]
# One call of np.add.at adds so often; the other writer goes on until it is told to stop.
_ADDS, _QUICK_ADDS = 1 << 20, 1 << 16
_FAR_ADDS = 1 << 14
# Words of the page, far from those that are measured: whether the other is to go on, and whether it has begun.
_GO, _BEGUN = _PAGE // 2 // _WORD_NBYTES, _PAGE // 2 // _WORD_NBYTES + 128
_ROWS = 3


class Writers:
    """The caller and another process, each with a word of one page that it adds to."""

    def __init__(self, seats: Seats) -> None:
        self._fd = os.memfd_create("slabwire:bench", os.MFD_CLOEXEC)
        os.ftruncate(self._fd, _PAGE)
        self._words = _words(self._fd)
        self._echo = EchoProcess("topologies.false_sharing:serve", seats.echo, {"fd": self._fd}, [self._fd])

    def visit(self, case: Case, adds: int) -> tuple[list[float], int]:
        """Microseconds a thousand additions here, while the other adds to the word so many bytes away."""
        words = self._words
        self._echo.order(int(case.x), 0 if case == _ALONE else 1, spinning=True)
        words[_GO] = 1
        while not words[_BEGUN]:
            os.sched_yield()
        where = np.zeros(adds, np.intp)
        words[0] = 0
        began = perf_counter_ns()
        np.add.at(words, where, 1)
        took = perf_counter_ns() - began
        words[_GO] = 0
        while words[_BEGUN]:
            os.sched_yield()
        if words[0] != adds:
            raise BenchError(f"{adds} additions came to {words[0]}: another process wrote the same word")
        return [took / adds], 1

    def close(self, *, now: bool) -> None:
        self._echo.close(now=now)
        os.close(self._fd)

    def __enter__(self) -> Writers:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.close(now=kind is not None)


def _words(fd: int) -> Any:
    return np.frombuffer(mmap(fd, _PAGE), np.int64)


def serve(orders: Iterable[Order], details: dict[str, Any]) -> None:
    """The other writer."""
    words = _words(details["fd"])
    for order in orders:
        where = np.full(_FAR_ADDS, order.nbytes // _WORD_NBYTES, np.intp)
        while not words[_GO]:
            os.sched_yield()
        words[_BEGUN] = 1
        while words[_GO]:
            if order.trips:
                np.add.at(words, where, 1)
        words[_BEGUN] = 0


def measure_false_sharing(settings: Settings) -> Report:
    """What an addition costs while another process adds to a word beside it, and what it costs 128 bytes apart.

    Both add in C (np.add.at), each on a CPU of its own, each to a word of its own. Then every layout of the package is
    checked to give each writer lines of 128 bytes of its own.
    """
    seats = Seats.choose()
    with Writers(seats) as writers, pinned(seats.caller):

        def visit(cell: Cell) -> tuple[list[float], int]:
            return writers.visit(cell.case, settings.few(_ADDS, _QUICK_ADDS))

        results = settings.measure(cells_of(_CASES, ["adds"]), visit)
    report = Report("false_sharing", "a thousand additions", results, {"adds": "np.add.at"})
    apart = results[Cell(_APART, "adds")]
    times = {case.text: results[Cell(case, "adds")].times(apart) for case in _CASES}
    checked = check_all()
    report.figures = {"times_apart": times, "layouts": checked}
    report.notes = [
        "times as long as 128 bytes apart: " + ", ".join(f"{text} {each:.2f}" for text, each in times.items()),
        f"no line of {LINE_NBYTES} bytes has two writers in any of {len(checked)} layouts: {', '.join(checked)}",
    ]
    return report


def check_all() -> list[str]:
    """Proves it for every layout that the package declares; raises LayoutError with the first offence."""
    from ...cli.commands.layout import layouts

    layouts()  # imports all that declare one
    for layout in all_layouts():
        for rows in (1, _ROWS, 64):
            prove(layout.place(**dict.fromkeys(layout.parameters, rows)))
    return [each.name for each in all_layouts()]


command = command_of(measure_false_sharing, rounds=9)
