"""Moving a worker: the plan after it, by itself, and the threads of a process."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plans import actor, check_spinning, graph, graphs, machine, machines
from slabwire.runtime.host.affinity import counterparts, repin
from slabwire.runtime.host.topology import Topology
from slabwire.runtime.placement.moves import MoveError, changed, free_cpus, moved, wanted_cpus
from slabwire.runtime.placement.plan import Plan, WorkerPlan, plan

FOUR = machine(4)


def planned(*names: str, topology: Topology = FOUR) -> Plan:
    return plan(graph(*map(actor, names)), topology)


def test_company_and_spinning_are_decided_anew_for_all() -> None:
    before = planned("a", "b", "c")
    after = moved(before, FOUR, "a", (1,), "moved here")
    assert [(each.cores, each.spin) for each in after.workers] == [((1,), False), ((1,), False), ((2,), True)]
    assert after.worker("a").reason == "moved here from CPU 0: shares core 1 with b"
    assert after.worker("b").reason == "shares core 1 with a, since a was moved"
    assert [each.name for each in changed(before, after)] == ["a", "b"]
    back = moved(after, FOUR, "a", (3,), "moved here")
    assert all(each.spin for each in back.workers)
    assert back.worker("b").reason == "alone on core 1, since a was moved"


def test_threads_of_one_core_may_spin_beside_each_other() -> None:
    smt = machine(2, threads=2)
    before = planned("a", "b", topology=smt)
    after = moved(before, smt, "b", (2,), "moved here")
    assert (after.worker("a").cores, after.worker("b").cores) == ((0, 2), (2,))
    assert not after.worker("a").spin
    assert after.worker("b").reason == "moved here from CPU 1,3: shares core 0 with a"


def test_a_quota_that_does_not_pay_is_named() -> None:
    small = machine(4, quota=1.5)
    after = moved(planned("a", "b", topology=small), small, "a", (3,), "moved here")
    assert after.worker("a").reason.endswith("; no spinning on a CPU quota of 1.5")


@pytest.mark.parametrize(
    ("cpus", "text"),
    [
        ("7", "CPU 7 is not for this graph to use; it may use 0-3"),
        ("x", "'x' are no CPUs; write them as in 1, 0-2 or 0,4, or 'free'"),
        ("", "'' are no CPUs"),
        ("1,,2", "are no CPUs"),
        ("0-99999999999", "are no CPUs"),
        ("3-1", "'3-1' holds no CPU"),
        ("2", "big has thread pools of 2 threads, sized when it started, and CPU 2 is too few"),
        ("free", "needs 2 that nobody is on, and 1 of the 4 usable cores are free; it is alone on CPU 0-1 already"),
    ],
)
def test_what_cannot_be_is_refused(cpus: str, text: str) -> None:
    before = plan(graph(actor("big", cores=2), actor("small")), FOUR)
    with pytest.raises(MoveError) as caught:
        wanted_cpus(cpus, before, FOUR, "big")
    assert text in str(caught.value)


def test_free_cores_are_whole_and_new() -> None:
    smt = machine(4, threads=2)
    before = plan(graph(actor("big", cores=2), actor("small")), smt)
    assert free_cpus(before, smt, "small") == (3, 7)
    full = plan(graph(*(actor(f"a{index}") for index in range(4))), FOUR)
    with pytest.raises(MoveError, match="it is alone on CPU 0 already"):
        free_cpus(full, FOUR, "a0")
    crowded = moved(full, FOUR, "a0", (1,), "moved here")
    assert free_cpus(crowded, FOUR, "a1") == (0,)


@settings(deadline=None)
@given(graphs(), machines, st.data())
def test_every_move_leaves_a_plan_that_keeps_the_rules(spec: object, topology: Topology, data: st.DataObject) -> None:
    before = plan(spec, topology)  # type: ignore[arg-type]
    worker: WorkerPlan = data.draw(st.sampled_from(before.workers))
    cpus = data.draw(st.sets(st.sampled_from(topology.cpus), min_size=1))
    after = moved(before, topology, worker.name, cpus, "moved here")
    assert after.worker(worker.name).cores == tuple(sorted(cpus))
    check_spinning(after, topology)
    others = [(each.cores, each.threads, each.instances) for each in after.workers if each.name != worker.name]
    assert others == [(each.cores, each.threads, each.instances) for each in before.workers if each.name != worker.name]
    assert moved(after, topology, worker.name, worker.cores, "").worker(worker.name).spin == worker.spin


# Three threads: one on all CPUs of the process, one on the second of them, one beside both.
THREADS = """
import os, threading
first, second = sorted(os.sched_getaffinity(0))[:2]
os.sched_setaffinity(0, {first, second})
def sleep(mask):
    os.sched_setaffinity(0, mask)
    ready.wait()
    threading.Event().wait()
ready = threading.Barrier(3)
for mask in ({first, second}, {second}):
    threading.Thread(target=sleep, args=(mask,), daemon=True).start()
ready.wait()
print(threading.get_native_id(), *(each.native_id for each in threading.enumerate()[1:]), flush=True)
input()
"""


@pytest.fixture
def threads() -> Iterator[list[int]]:
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("moving takes two CPUs")
    process = subprocess.Popen([sys.executable, "-c", THREADS], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    yield [int(each) for each in process.stdout.readline().split()]
    process.communicate(b"\n")


def test_threads_of_a_pool_go_to_corresponding_cpus(threads: list[int]) -> None:
    first, second = sorted(os.sched_getaffinity(0))[:2]
    main, wide, narrow = threads
    assert repin(main, {first}) == 3
    assert [os.sched_getaffinity(each) for each in threads] == [{first}] * 3
    repin(main, {first, second})
    assert os.sched_getaffinity(wide) == {first, second}
    os.sched_setaffinity(narrow, {second})
    repin(main, {second})
    repin(main, {first})
    assert {cpu for each in threads for cpu in os.sched_getaffinity(each)} == {first}


def test_a_part_of_the_old_cpus_becomes_a_part_of_the_new(threads: list[int]) -> None:
    first, second = sorted(os.sched_getaffinity(0))[:2]
    main, wide, narrow = threads
    repin(main, {first, second})  # where it is already: nothing changes
    assert [os.sched_getaffinity(each) for each in (main, wide, narrow)] == [{first, second}] * 2 + [{second}]


def test_cores_stay_whole_when_cpus_are_numbered_as_usual() -> None:
    assert counterparts({0, 1, 4, 5}, {2, 3, 6, 7}) == {0: 2, 1: 3, 4: 6, 5: 7}
    assert counterparts({0, 1}, {3}) == {0: 3, 1: 3}
    assert counterparts({0}, {1, 5}) == {0: 1}


def test_a_process_that_is_gone_has_no_threads() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    assert repin(process.pid, {0}) == 0


def test_the_kernel_refuses_cpus_that_are_not_there(threads: list[int]) -> None:
    before = os.sched_getaffinity(threads[0])
    with pytest.raises(OSError, match="Invalid argument"):
        repin(threads[0], {8000})
    assert os.sched_getaffinity(threads[0]) == before
