"""Measuring: rounds, figures, ratios, tables and bars, exactly; and that a wrong answer ends a bench."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from slabwire.bench.harness.contestant import BenchError, Seats, checksum
from slabwire.bench.harness.measure import Case, Cell, Measurement, cells_of, measure, rounds_of
from slabwire.bench.harness.peers import enter
from slabwire.bench.harness.report import Bar, Report, flatness, number_text, ratio_text, size_text
from slabwire.bench.harness.settings import sizes_of
from slabwire.bench.harness.trips import trips_for, visit
from slabwire.bench.topologies.data_plane import TOPOLOGIES
from slabwire.bench.ways.eventfd import Eventfd

SMALL, LARGE = Case("64 B", 64), Case("1 MiB", 1 << 20)


def slabwire(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "slabwire", *arguments]


def test_bench_lists_what_there_is() -> None:
    done = subprocess.run(slabwire("bench", "--help"), capture_output=True, text=True, check=True)
    assert {"ping_pong", "read-page", "chat"} <= set(done.stdout.split())
    unknown = subprocess.run(slabwire("bench", "jump"), capture_output=True, text=True, check=False)
    assert unknown.returncode == 2
    assert "jump" in unknown.stderr


def test_the_page_explains_every_topology() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "benchmarks.md").read_text()
    assert [line.removeprefix("### ") for line in page.splitlines() if line.startswith("### ")] == list(TOPOLOGIES)


@pytest.mark.parametrize("sizes", ["", "0", "64,", "1GiB", "-5", "64KB"])
def test_a_size_that_is_none(sizes: str) -> None:
    from click import BadParameter

    with pytest.raises(BadParameter, match="is no size from 1 to 64MiB"):
        sizes_of(sizes)


def test_sizes_are_read_once_each() -> None:
    assert sizes_of("64, 64KiB,65536,1 mib") == (64, 65536, 1048576)
    assert [size_text(each) for each in (64, 1500, 65536, 3 << 20)] == ["64 B", "1500 B", "64 KiB", "3 MiB"]


class Forgetful(Eventfd):
    """Answers as if each payload were the first."""

    def trip(self, payload: np.typing.NDArray[np.uint8]) -> int:
        super().trip(payload)
        return 0


def test_a_wrong_answer_ends_the_bench() -> None:
    with pytest.raises(BenchError, match="answered 0 to 8 bytes"), Forgetful(Seats.choose(), ()) as contestant:
        visit(contestant, 8, 10, spinning=False)


def test_a_visit_counts_what_it_checked() -> None:
    with Eventfd(Seats.choose(), ()) as contestant:
        samples, verified = visit(contestant, 8, 10, spinning=False)
    assert len(samples) == 10
    assert verified > 10


def test_an_echo_that_has_ended_is_an_error() -> None:
    with Eventfd(Seats.choose(), ()) as contestant:
        contestant._echo.close(now=True)
        with pytest.raises((BenchError, OSError)):
            visit(contestant, 8, 10, spinning=False)


def test_checksum_sees_both_ends() -> None:
    payload = np.array([1, 9, 2], np.uint8)
    assert checksum(payload) == 0x102
    assert checksum(payload[:1]) == 0x101


def test_large_payloads_make_fewer_trips() -> None:
    assert [trips_for(each, 300) for each in (64, 1 << 20, 16 << 20)] == [300, 48, 10]


def test_rounds_visit_every_cell_in_an_order_that_the_seed_decides() -> None:
    cells = cells_of([SMALL, LARGE], ["a", "b", "c"])
    rounds = list(rounds_of(cells, 20, seed=5))
    assert all(sorted(each, key=str) == sorted(cells, key=str) for each in rounds)
    assert rounds == list(rounds_of(cells, 20, seed=5))
    assert rounds != list(rounds_of(cells, 20, seed=6))
    assert {each[0].contestant for each in rounds} == {"a", "b", "c"}
    for each in rounds:  # those that are compared are visited one after the other
        assert len({cell.case for cell in each[:3]}) == 1


def test_measuring_visits_each_cell_once_a_round() -> None:
    seen: list[Cell] = []

    def note(cell: Cell) -> tuple[list[float], int]:
        seen.append(cell)
        return [float(len(seen))], 3

    results = measure(cells_of([SMALL], ["a", "b"]), 4, 1, note)
    assert len(seen) == 8
    assert all(each.samples == 4 and each.verified == 12 for each in results.values())


def test_figures() -> None:
    measured = Measurement([[1.0, 2.0, 9.0], [3.0, 4.0, 5.0], [10.0, 10.0, 10.0]])
    assert (measured.medians, measured.median, measured.mad) == ([2.0, 4.0, 10.0], 4.0, 2.0)
    assert (measured.samples, measured.p99, measured.is_noisy) == (9, 10.0, True)
    # Round by round: a machine that is slow in one round is slow for both.
    assert measured.times(Measurement([[1.0], [2.0], [5.0]])) == 2.0


def report_of_two() -> Report:
    results = {
        Cell(SMALL, "ours"): Measurement([[10.0], [10.0], [10.0]]),
        Cell(SMALL, "pyzmq"): Measurement([[20.0], [100.0], [900.0]]),
        Cell(LARGE, "ours"): Measurement([[20.0], [10.0], [30.0]]),
    }
    titles = {"ours": "message", "pyzmq": "PAIR"}
    return Report("ping_pong", "a round trip", results, titles, ("ours", "bare_lane"), rates=True)


def test_a_report_compares_and_warns_of_noise() -> None:
    report = report_of_two()
    assert report.times(Cell(SMALL, "pyzmq")) == {"ours": 10.0, "bare_lane": None}
    assert report.heads()[-3:] == (">a second", ">× message", ">× bare_lane")
    first, second, third = report.rows()
    assert first == ("64 B", "message", "10.0", "0.00", "10.0", "100,000", "1.00", "-")
    assert second[:4] == ("", "PAIR", "100.0", "80.0 !")
    assert third[0] == "1 MiB"
    (warning,) = report.warnings()
    assert "pyzmq at 64 B (80% with 3 samples)" in warning
    assert report.ratio(SMALL, "ours", "pyzmq") == 0.1
    assert report.ratio(LARGE, "ours", "pyzmq") is None


def test_flatness_is_the_last_case_by_the_first() -> None:
    results = report_of_two().results
    assert flatness(results, "ours", 64, 1 << 20) == 2.0
    assert flatness(results, "pyzmq", 64, 1 << 20) is None


def test_a_report_is_one_json_document() -> None:
    document = json.loads(json.dumps(report_of_two().document()))
    assert [each["a_second"] for each in document["results"]] == [1e5, 1e4, 5e4]
    assert document["topology"] == "ping_pong"
    assert document["results"][0]["rounds_us"] == [10.0, 10.0, 10.0]


def test_bars_are_met_at_their_bounds() -> None:
    assert Bar("ratio", 1.5, most=1.5).is_met
    assert not Bar("ratio", 1.51, most=1.5).is_met
    assert Bar("rate", 1e6, least=1e6).is_met
    assert Bar("rate", 999_999, least=1e6).text() == "rate: 999,999, at least 1,000,000 demanded: NOT met"
    assert Bar("share", 0.004, most=0.01, percent=True).text() == "share: 0.400%, at most 1.000% demanded: met"
    assert Bar("rate", 2.0, least=1).plain() == {"what": "rate", "value": 2.0, "least": 1, "is_met": True}


def test_numbers_for_people() -> None:
    assert [number_text(each) for each in (0.123, 12.34, 1234.5)] == ["0.12", "12.3", "1,234"]
    assert [ratio_text(each) for each in (None, 1.234, 12.3)] == ["-", "1.23", "12"]


def test_who_is_not_installed_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    from contextlib import ExitStack

    monkeypatch.setitem(sys.modules, "zenoh", None)
    monkeypatch.delitem(sys.modules, "slabwire.bench.ways.zenoh_peers", raising=False)
    entries = (("eventfd", "Eventfd"), ("zenoh_peers", "ZenohStream"))
    with ExitStack() as stack:
        contestants, left_out = enter(entries, stack, Seats.choose(), ())
    assert list(contestants) == ["eventfd"]
    assert "zenoh" in left_out["zenoh"]
    with ExitStack() as stack, pytest.raises(ImportError, match="no_such_way"):  # a way of ours is there
        enter((("no_such_way", "X"),), stack)
