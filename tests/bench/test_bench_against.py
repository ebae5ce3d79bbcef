"""One checkout beside another: the interval, the verdict, and two real checkouts in the same rounds."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from slabwire.bench.harness.comparison import LEAST_ROUNDS, Comparison, compared, interval
from slabwire.bench.harness.measure import Case, Cell, Measurement, Results, measure

CHECKOUT = Path(__file__).resolve().parents[2]
SMALL, LARGE = Cell(Case("64 B", 64), "ours"), Cell(Case("1 MiB", 1 << 20), "ours")


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "slabwire", "bench", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def measured(*times_us: float) -> Measurement:
    return Measurement([[each] for each in times_us])


def test_the_interval_holds_the_median_and_is_the_same_again() -> None:
    ratios = [0.9, 0.95, 1.0, 1.0, 1.02, 1.1, 1.3]
    low, high = interval(ratios)
    assert 0.9 <= low < 1.0 < high <= 1.3
    assert interval(ratios) == (low, high)
    assert interval([1.2] * 9) == (1.2, 1.2)


def test_rows_of_both_are_compared_round_by_round() -> None:
    ours: Results = {SMALL: measured(2, 20, 200), LARGE: measured(1)}
    (row,) = compared(ours, {SMALL: measured(1, 10, 100)})
    assert (row.cell, row.ratio, row.low, row.high, row.rounds) == (SMALL, 2.0, 2.0, 2.0, 3)


@pytest.mark.parametrize(
    ("ours", "rounds", "said"),
    [
        (1.2, LEAST_ROUNDS, "slower: the whole interval of 1 of 1 rows lies above 1.05: ours at 64 B"),
        (1.04, LEAST_ROUNDS, "no row of 1 is slower"),
        (1.2, LEAST_ROUNDS - 1, "5 rounds are too few"),
    ],
)
def test_the_verdict(ours: float, rounds: int, said: str) -> None:
    rows = compared({SMALL: measured(*[ours] * rounds)}, {SMALL: measured(*[1.0] * rounds)})
    assert Comparison("before", list(rows)).verdict().startswith(said)


class Noting:
    """The other checkout: it has the small case alone."""

    def __init__(self, visits: list[str]) -> None:
        self._visits = visits

    def can_visit(self, cell: Cell) -> bool:
        return cell == SMALL

    def visit(self, cell: Cell) -> None:
        self._visits.append(f"theirs {cell.case.text}")


def test_the_visits_of_both_stand_side_by_side_in_either_order() -> None:
    visits: list[str] = []

    def visit(cell: Cell) -> tuple[list[float], int]:
        visits.append(f"ours {cell.case.text}")
        return [1.0], 1

    measure([SMALL, LARGE], 20, 1, visit, Noting(visits))
    small = [each for each in visits if each.endswith("64 B")]
    pairs = {tuple(small[each : each + 2]) for each in range(0, 40, 2)}
    assert pairs == {("ours 64 B", "theirs 64 B"), ("theirs 64 B", "ours 64 B")}
    assert visits.count("ours 1 MiB") == 20


@cache
def against_itself() -> dict[str, Any]:
    done = bench("one_to_one", "--quick", "--format", "json", "--against", str(CHECKOUT))
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def test_another_checkout_takes_part_in_each_round() -> None:
    document = against_itself()
    rows = {each["contestant"]: each for each in document["against"]["rows"]}
    assert set(rows) == {each["contestant"] for each in document["results"]}
    for each in document["results"]:
        row = rows[each["contestant"]]
        assert row["median_us"] == pytest.approx(each["median_us"])
        assert row["other_median_us"] > 0
        assert row["other_median_us"] != row["median_us"]
        low, high = row["interval_95"]
        assert low <= row["ratio"] <= high


def test_a_folder_that_is_no_checkout(tmp_path: Path) -> None:
    done = bench("one_to_one", "--against", str(tmp_path))
    assert done.returncode == 2
    assert "is no checkout of Slabwire: it has no bench/__init__.py" in done.stderr


def test_a_checkout_whose_bench_ends(tmp_path: Path) -> None:
    (tmp_path / "bench").mkdir()
    (tmp_path / "bench" / "__init__.py").touch()
    (tmp_path / "__init__.py").touch()
    (tmp_path / "__main__.py").write_text("raise SystemExit('this checkout does not work')")
    done = bench("one_to_one", "--quick", "--against", str(tmp_path))
    assert done.returncode == 1
    assert "this checkout does not work" in done.stderr
    assert f"the bench of {tmp_path} has ended; why stands above" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_bench_whose_visits_nobody_orders_ends() -> None:
    done = bench("one_to_one", "--quick", "--visited-by", "99")
    assert done.returncode == 1
    assert "is no socket of the bench that orders visits" in done.stderr
