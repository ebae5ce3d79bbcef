"""Who of an ingress's replicas is there, as others see it: with processes that run, stop and die."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from slabwire.actors.ingress.counts.roster import ROSTER, Roster, Stage, keep_here
from slabwire.actors.ingress.counts.sheet import Sheet
from slabwire.runtime.actor.kept import Kept
from slabwire.runtime.host.process_usage import stat_fields
from slabwire.shm.layout import Layout, prove
from waiting import wait_until


class Shared:
    """Memory that several rosters of this process share, as those of replicas do."""

    def __init__(self) -> None:
        self.kept: Kept | None = None

    def of(self, replica: int, replicas: int = 2) -> Roster:
        def keep(name: str, layout: Layout, **parameters: int) -> Kept:
            self.kept = self.kept or keep_here(name, layout, **parameters)
            return Kept(self.kept.words, self.kept.bytes, self.kept.placed, replica)

        sheet = Sheet()
        self.counter, self.gauge = sheet.counter("c", "C."), sheet.gauge("g", "G.")
        return Roster(sheet, keep, replicas)

    def set(self, word: str, replica: int, value: int) -> None:
        assert self.kept is not None
        self.kept.words[self.kept.placed.word(word, replica)] = value


@pytest.fixture
def process() -> Iterator[int]:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        yield child.pid
        child.kill()


def test_one_writer_a_line() -> None:
    prove(ROSTER.place(replicas=3, lines=21))


def test_stages_of_all_are_seen_by_all() -> None:
    shared = Shared()
    first, second = shared.of(0), shared.of(1)
    assert not first.others_serve()
    second.enter(Stage.SERVING)
    assert first.others_serve()
    assert not second.others_serve()
    assert [each.stage for each in first.see()] == [Stage.AWAY, Stage.SERVING]
    second.enter(Stage.LEAVING)
    assert not first.others_serve()


def test_a_process_that_stops_or_dies_is_away_and_so_is_a_pid_that_comes_again(process: int) -> None:
    shared = Shared()
    first, second = shared.of(0), shared.of(1)
    second.enter(Stage.SERVING)
    shared.set("process", 1, process)
    assert not first.others_serve()  # for it was started at another time
    shared.set("born", 1, int(stat_fields(process)[19]))
    assert first.others_serve()
    os.kill(process, signal.SIGSTOP)
    wait_until(lambda: not first.others_serve())
    os.kill(process, signal.SIGCONT)
    wait_until(first.others_serve)
    os.kill(process, signal.SIGKILL)
    wait_until(lambda: not first.others_serve())


def test_what_a_dead_one_has_counted_stays_and_its_successor_goes_on() -> None:
    shared = Shared()
    first = shared.of(0)
    shared.of(1)
    shared.counter.inc(by=5)
    shared.gauge.set(3)
    shared.set("process", 1, 0)
    assert [(row.numbers[:2], row.is_here) for row in first.rows()] == [([0, 0], True), ([5, 3], False)]
    again = shared.of(1)
    shared.counter.inc()
    assert [row.numbers[:2] for row in again.rows()] == [[0, 0], [6, 0]]
