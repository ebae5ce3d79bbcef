"""The benches: that they run, measure all that they name, and check what they measure. Never how fast anything is."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pytest

from slabwire.bench.contestant import BenchError, Mode, Seats, checksum
from slabwire.bench.eventfd import Eventfd
from slabwire.bench.hop import sizes_of
from slabwire.bench.measure import Cell, Measurement, rounds_of, visit
from slabwire.bench.report import rows, size_text, times_ours, warnings

EVERYBODY = {"graph_call", "bare_lane", "pyzmq", "pipe"}
SIZES = [64, 65536, 1048576]


def slabwire(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "slabwire", *arguments]


@pytest.fixture(scope="module")
def hop() -> dict[str, Any]:
    done = subprocess.run(
        slabwire("bench", "hop", "--quick", "--format", "json", "--seed", "3"),
        capture_output=True,
        text=True,
        check=True,
    )
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def test_every_contestant_is_there_at_every_size(hop: dict[str, Any]) -> None:
    found = {(each["nbytes"], each["mode"], each["contestant"]) for each in hop["results"]}
    expected = {(size, mode, name) for size in SIZES for mode in ("hot", "parked") for name in EVERYBODY}
    assert found == expected | {(size, "parked", "eventfd") for size in SIZES}


def test_every_answer_was_checked(hop: dict[str, Any]) -> None:
    assert all(each["verified"] >= each["samples"] > 0 for each in hop["results"])


def test_the_raw_medians_make_the_figures(hop: dict[str, Any]) -> None:
    for each in hop["results"]:
        assert len(each["rounds_us"]) == hop["rounds"]
        assert each["median_us"] == pytest.approx(median(each["rounds_us"]))
        assert 0 < each["median_us"] <= each["p99_us"]
        assert set(each["times"]) == {"graph_call", "bare_lane"}


def test_it_says_what_it_ran_on(hop: dict[str, Any]) -> None:
    machine = hop["machine"]
    assert machine["processor"]
    assert machine["kernel"].startswith("Linux")
    assert {"numpy", "pyzmq", "slabwire"} <= set(machine["versions"])
    assert hop["topology"] == "ping_pong"
    assert hop["seed"] == 3


def test_the_table_for_people() -> None:
    done = subprocess.run(
        slabwire("bench", "hop", "--quick", "--sizes", "100,2KiB"), capture_output=True, text=True, check=True
    )
    lines = done.stdout.splitlines()
    assert [line.split()[:2] for line in lines if line.startswith(("100 B", "2 KiB"))] == [["100", "B"], ["2", "KiB"]]
    assert sum("client.call" in line for line in lines[3:]) == 4
    assert "samples each, in 2 interleaved rounds" in done.stdout


def test_ctrl_c_leaves_nothing() -> None:
    process = subprocess.Popen(
        slabwire("bench", "hop", "--rounds", "1000"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    while len(children.read_text().split()) < 5:  # a supervisor and four echoes
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    out, errors = process.communicate()
    assert process.returncode == 130
    assert "Traceback" not in out + errors


def test_bench_lists_what_there_is() -> None:
    done = subprocess.run(slabwire("bench", "--help"), capture_output=True, text=True, check=True)
    assert "hop" in done.stdout
    assert "read-page" in done.stdout
    unknown = subprocess.run(slabwire("bench", "jump"), capture_output=True, text=True, check=False)
    assert unknown.returncode == 2
    assert "jump" in unknown.stderr


@pytest.mark.parametrize("sizes", ["", "0", "64,", "1GiB", "-5", "64KB"])
def test_a_size_that_is_none(sizes: str) -> None:
    done = subprocess.run(slabwire("bench", "hop", "--sizes", sizes), capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "is no size from 1 to 64MiB" in done.stderr


def test_sizes_are_read_once_each() -> None:
    assert sizes_of("64, 64KiB,65536,1 mib") == (64, 65536, 1048576)
    assert [size_text(each) for each in (64, 1500, 65536, 3 << 20)] == ["64 B", "1500 B", "64 KiB", "3 MiB"]


class Forgetful(Eventfd):
    """Answers as if each payload were the first."""

    def trip(self, payload: np.typing.NDArray[np.uint8]) -> int:
        super().trip(payload)
        return 0


def test_a_wrong_answer_ends_the_bench() -> None:
    measured = Measurement()
    with Forgetful(Seats.choose(), ()) as contestant, pytest.raises(BenchError, match="answered 0 to 8 bytes"):
        visit(contestant, Mode.PARKED, 8, 10, measured)
    assert not measured.rounds


def test_a_visit_counts_what_it_checked() -> None:
    measured = Measurement()
    with Eventfd(Seats.choose(), ()) as contestant:
        visit(contestant, Mode.PARKED, 8, 10, measured)
    assert measured.samples == 10
    assert measured.verified > 10


def test_an_echo_that_has_ended_is_an_error() -> None:
    with Eventfd(Seats.choose(), ()) as contestant:
        contestant._echo.close(now=True)
        with pytest.raises((BenchError, OSError)):
            visit(contestant, Mode.PARKED, 8, 10, Measurement())


def test_checksum_sees_both_ends() -> None:
    payload = np.array([1, 9, 2], np.uint8)
    assert checksum(payload) == 0x102
    assert checksum(payload[:1]) == 0x101


def test_rounds_visit_every_cell_in_an_order_that_the_seed_decides() -> None:
    cells = [Cell(size, mode, name) for size in (1, 2) for mode in Mode for name in ("a", "b", "c")]
    rounds = list(rounds_of(cells, 20, seed=5))
    assert all(sorted(each, key=str) == sorted(cells, key=str) for each in rounds)
    assert rounds == list(rounds_of(cells, 20, seed=5))
    assert rounds != list(rounds_of(cells, 20, seed=6))
    assert {each[0].contestant for each in rounds} == {"a", "b", "c"}
    for each in rounds:  # those that are compared are visited one after the other
        assert len({(cell.nbytes, cell.mode) for cell in each[:3]}) == 1


def test_figures() -> None:
    measured = Measurement([[1.0, 2.0, 9.0], [3.0, 4.0, 5.0], [10.0, 10.0, 10.0]])
    assert (measured.medians, measured.median, measured.mad) == ([2.0, 4.0, 10.0], 4.0, 2.0)
    assert (measured.samples, measured.p99, measured.is_noisy) == (9, 10.0, True)
    # Round by round: a machine that is slow in one round is slow for both.
    assert measured.times(Measurement([[1.0], [2.0], [5.0]])) == 2.0


def test_report_compares_with_ours_and_warns_of_noise() -> None:
    results = {
        Cell(64, Mode.HOT, "graph_call"): Measurement([[10.0], [10.0], [10.0]]),
        Cell(64, Mode.HOT, "pyzmq"): Measurement([[20.0], [100.0], [900.0]]),
    }
    assert times_ours(results, Cell(64, Mode.HOT, "pyzmq")) == {"graph_call": 10.0, "bare_lane": None}
    table = rows(results, {"graph_call": "client.call", "pyzmq": "pyzmq"})
    assert table[0] == ("64 B", "hot", "client.call", "10.0", "0.0", "10.0", "1.00", "-")
    assert table[1][:5] == ("", "", "pyzmq", "100.0", "80.0 !")
    (warning,) = warnings(results)
    assert "pyzmq at 64 B hot (80% with 3 samples)" in warning
