"""The example's graph under kill -9: whichever actor dies, and whenever, the page is read completely and correctly."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import ocr
import read_page
from read_page_straight import StraightReader

WORKERS = ["detect", "recognise[0]", "recognise[1]", "reader"]
# A page takes a few hundred milliseconds: moments are drawn over somewhat more than that.
PAGE_S = 0.6


@pytest.fixture(scope="module")
def expected() -> list[str]:
    return StraightReader().page(ocr.sample_page())[0]


@pytest.fixture
def running(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    directory: Path = tmp_path_factory.mktemp("r")
    monkeypatch.setenv("SLABWIRE_RUN_DIR", str(directory))
    with read_page.build().run() as graph:
        yield graph


def ready_pid(running: Any, worker: str, after: int | None = None) -> int:
    """The process of a worker, once it is ready; with `after`, the successor of that process."""
    while True:
        status = next(each for each in running.status()["workers"] if each["name"] == worker)
        if status["state"] == "ready" and status["pid"] != after:
            return int(status["pid"])
        time.sleep(0.01)


def read_while(running: Any, victim: int, after_s: float) -> list[str]:
    """The lines of a page during whose reading a process is killed."""
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(running.client.call, "reader.page", ocr.sample_page(), timeout_s=60)
        time.sleep(after_s)  # the moment of the kill, not a synchronisation
        os.kill(victim, signal.SIGKILL)
        return list(answer.result()["lines"])


def test_replicas_read_what_one_script_reads(running: Any, expected: list[str]) -> None:
    for _ in range(3):
        assert running.client.call("reader.page", ocr.sample_page(), timeout_s=60)["lines"] == expected


def test_each_actor_may_die_while_a_page_is_read(running: Any, expected: list[str]) -> None:
    for worker in WORKERS:
        victim = ready_pid(running, worker)
        assert read_while(running, victim, 0.1) == expected, worker
        ready_pid(running, worker, after=victim)


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", range(3))
def test_any_actor_may_die_at_any_moment(running: Any, expected: list[str], seed: int) -> None:
    moments = random.Random(seed)
    killed: dict[str, int] = {}
    for number in range(20):
        worker, after_s = moments.choice(WORKERS), moments.uniform(0, PAGE_S)
        killed[worker] = ready_pid(running, worker, after=killed.get(worker))
        lines = read_while(running, killed[worker], after_s)
        assert lines == expected, f"kill {number}: {worker} after {after_s:.3f} s"
