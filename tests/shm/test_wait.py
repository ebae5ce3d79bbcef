"""The adaptive wait: it looks while that pays, not while others need the core, and sleeps through nothing."""

from __future__ import annotations

import os
import select
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge import Edge
from lanes import lanes_of
from slabwire import Graph
from slabwire.shm import fence
from slabwire.shm.bell import RECORDS, UNFENCED_PARK_S, now_ns
from slabwire.shm.contention import CONTENDED_SHARE, LOOK_EVERY_NS, Contention, run_delay
from slabwire.shm.wait import LONGEST_SPIN_NS, AdaptiveWait
from stage import Echo

MS = 1_000_000


class Delay:
    """What the kernel says of a thread, as a test has it."""

    def __init__(self) -> None:
        self.thread = 1
        self.nanoseconds = 0

    def __call__(self) -> tuple[int, int]:
        return self.thread, self.nanoseconds


@pytest.fixture
def edge() -> Iterator[Edge]:
    edge = Edge()
    yield edge
    edge.close()


def quiet() -> Contention:
    return Contention(Delay())


def test_spinning_goes_on_only_while_it_pays(edge: Edge) -> None:
    wait = AdaptiveWait(edge.bell(0), may_spin=True, contention=quiet())
    assert wait.spin_ns(0) == LONGEST_SPIN_NS
    for _ in range(20):
        wait.spun(in_vain=False)
    for _ in range(3):
        wait.spun(in_vain=True)
    assert wait.spin_ns(0) == LONGEST_SPIN_NS  # a few failures do not count
    wait.spun(in_vain=True)
    assert wait.spin_ns(0) == 0


def test_short_sleeps_are_worth_a_try_and_failures_make_it_rare(edge: Edge) -> None:
    wait = AdaptiveWait(edge.bell(0), may_spin=True, contention=quiet())
    sleeps = []
    for _ in range(8):
        count = 0
        while not wait.spin_ns(0):
            wait.slept(LONGEST_SPIN_NS)
            count += 1
        wait.spun(in_vain=True)
        sleeps.append(count)
    assert sleeps == [0, 4, 8, 16, 32, 64, 128, 256]
    for _ in range(256):
        wait.slept(LONGEST_SPIN_NS)
    wait.spun(in_vain=False)
    assert wait.spin_ns(0) == LONGEST_SPIN_NS


def test_long_sleeps_are_worth_no_try(edge: Edge) -> None:
    wait = AdaptiveWait(edge.bell(0), may_spin=True, contention=quiet())
    wait.spun(in_vain=True)
    for _ in range(1000):
        wait.slept(LONGEST_SPIN_NS)
        wait.slept(100 * LONGEST_SPIN_NS)
    assert wait.spin_ns(0) == 0


def test_who_may_not_spin_never_does(edge: Edge) -> None:
    wait = AdaptiveWait(edge.bell(0), may_spin=False, contention=quiet())
    assert not wait.spin(lambda: True)
    assert (wait.spins, wait.bell.parks, wait.bell.wakes, wait.contended) == (0, 0, 0, 0)


def test_news_ends_the_spin_and_is_counted(edge: Edge) -> None:
    wait = AdaptiveWait(edge.bell(0), may_spin=True, contention=quiet())
    looks = iter([False, False, True])
    assert wait.spin(lambda: next(looks))
    assert wait.spins == 1
    assert not wait.spin(lambda: False)
    assert wait.spins == 1


def test_a_spin_ends_with_the_deadline(edge: Edge) -> None:
    wait = AdaptiveWait(edge.bell(0), may_spin=True, contention=quiet())
    looked: list[int] = []
    assert not wait.spin(lambda: looked.append(1), until_ns=now_ns() - 1)
    assert not looked


def test_nobody_sleeps_who_has_news(edge: Edge) -> None:
    bell = edge.bell(1)
    wait = AdaptiveWait(bell, may_spin=True, contention=quiet())
    slept: list[float | None] = []
    wait.park(RECORDS, lambda: True, slept.append, longest_s=3.0)
    wait.park(RECORDS, lambda: False, slept.append, longest_s=3.0)
    wait.park(RECORDS, lambda: False, slept.append)
    assert slept == [0.0, 3.0, None]
    assert wait.bell.parks == 3


def test_the_last_look_comes_after_the_announcement(edge: Edge) -> None:
    """What is sent in between rings; what was sent before is seen."""
    wait = AdaptiveWait(edge.bell(1), may_spin=False)
    ringer = edge.ringer(1)

    def has_news() -> bool:
        ringer.ring(RECORDS)
        return False

    def sleep(_longest_s: float | None) -> None:
        assert select.select([wait.bell.fd], [], [], 0)[0]

    wait.park(RECORDS, has_news, sleep)
    assert wait.bell.wakes == 1


def test_a_park_that_raises_is_taken_back(edge: Edge) -> None:
    wait = AdaptiveWait(edge.bell(1), may_spin=False)

    def interrupted(_longest_s: float | None) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        wait.park(RECORDS, lambda: False, interrupted)
    edge.ringer(1).ring(RECORDS)
    assert not select.select([wait.bell.fd], [], [], 0)[0]


def test_without_a_fence_each_sleep_is_bounded(edge: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fence, "full_barrier", lambda: False)
    wait = AdaptiveWait(edge.bell(1), may_spin=False)
    slept: list[float | None] = []
    for longest_s in (None, 9.0, UNFENCED_PARK_S / 2):
        wait.park(RECORDS, lambda: False, slept.append, longest_s)
    assert slept == [UNFENCED_PARK_S, UNFENCED_PARK_S, UNFENCED_PARK_S / 2]


def test_nobody_spins_while_others_need_the_core(edge: Edge) -> None:
    delay = Delay()
    wait = AdaptiveWait(edge.bell(0), may_spin=True, contention=Contention(delay))
    now = 1000 * MS
    assert wait.spin_ns(now) == LONGEST_SPIN_NS
    now += LOOK_EVERY_NS
    delay.nanoseconds += LOOK_EVERY_NS // 2
    assert wait.spin_ns(now) == 0
    assert wait.contended == 1


def test_contention_is_tried_again_less_and_less_often() -> None:
    delay = Delay()
    contention = Contention(delay)
    now, tries, last = 1000 * MS, [], 0
    contention.is_there(now)
    for _ in range(2000):
        now += LOOK_EVERY_NS
        if not contention.is_there(now):  # it spins, and finds others waiting again
            tries.append(now - last)
            last = now
            delay.nanoseconds += LOOK_EVERY_NS // 2
    gaps = tries[3:10]
    assert gaps == sorted(gaps)
    assert gaps[-1] > 4 * gaps[0]


def test_a_free_core_is_forgiven() -> None:
    delay = Delay()
    contention = Contention(delay)
    now = 1000 * MS
    contention.is_there(now)
    now += LOOK_EVERY_NS
    delay.nanoseconds += LOOK_EVERY_NS
    assert contention.is_there(now)
    assert not contention.is_there(now + 100 * MS)
    delay.nanoseconds += int(CONTENDED_SHARE * LOOK_EVERY_NS) - 1
    assert not contention.is_there(now + 100 * MS + LOOK_EVERY_NS)


def test_the_delay_of_another_thread_says_nothing() -> None:
    delay = Delay()
    contention = Contention(delay)
    contention.is_there(1000 * MS)
    delay.thread, delay.nanoseconds = 2, 10_000 * MS
    assert not contention.is_there(1000 * MS + LOOK_EVERY_NS)


def test_the_kernel_counts_how_long_a_thread_waits_for_a_core() -> None:
    """A busy child on the only core of this thread makes it wait."""
    if not os.path.exists("/proc/thread-self/schedstat"):
        pytest.skip("this kernel has no /proc/thread-self/schedstat")
    cpus = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cpus)})
    pid = _busy_child()
    try:
        thread, before = run_delay()
        while run_delay()[1] - before < 5 * MS:
            pass
        assert thread == run_delay()[0] != 0
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
        os.sched_setaffinity(0, cpus)


def test_a_graph_stops_spinning_when_the_cores_are_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many busy processes as cores run beside it: who calls in turn finds that, and sleeps in between."""
    monkeypatch.setenv("SLABWIRE_RUN_DIR", str(tmp_path / "run"))
    graph = Graph("crowded")
    graph.expose(graph.add(Echo).echo)
    with graph.run() as running:
        client = running.client
        wait = lanes_of(client).wait
        busy = [_busy_child() for _ in os.sched_getaffinity(0)]
        try:
            while not wait.contended:
                client.call("echo.echo", 1)
            # It tries again now and then: of many calls only a few may have been awaited while spinning.
            before = wait.spins
            for _ in range(500):
                client.call("echo.echo", 1)
            assert wait.spins - before < 250
        finally:
            for pid in busy:
                os.kill(pid, 9)
                os.waitpid(pid, 0)


def _busy_child() -> int:
    pid = os.fork()
    if pid == 0:
        while True:
            pass
    return pid
