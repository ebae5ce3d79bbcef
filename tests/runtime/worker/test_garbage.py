"""When a worker collects cyclic garbage: what is decided, by a clock and a collector of our own, and real workers."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

import slabwire
from fake_graphs import invoke
from slabwire import Actor, Graph
from slabwire.runtime.clients.control import Control
from slabwire.runtime.control.verbs import Metrics
from slabwire.runtime.telemetry.metrics import metrics_text
from slabwire.runtime.worker import garbage as garbage_file
from slabwire.runtime.worker.garbage import IDLE_NS, SHARE, WORTHWHILE, YOUNG, Garbage
from waiting import wait_until, worker_of

PYTHONS = (700, 10, 10)


class Collector:
    """In the place of the module `gc`, and the clock that its collections take their time of."""

    def __init__(self) -> None:
        self.now = 10**9
        self.thresholds = PYTHONS
        self.count = (0, 0, 0)
        self.is_enabled = True
        self.takes_ns = [1_000, 10_000, 50_000_000]
        self.did: list[Any] = []
        self.callbacks: list[Callable[[str, dict[str, int]], None]] = []

    def set_threshold(self, young: int) -> None:
        self.thresholds = (young, *self.thresholds[1:])

    def get_threshold(self) -> tuple[int, int, int]:
        return self.thresholds

    def get_count(self) -> tuple[int, int, int]:
        return self.count

    def isenabled(self) -> bool:
        return self.is_enabled

    def freeze(self) -> None:
        self.did.append("freeze")

    def collect(self, generation: int = 2) -> None:
        for each in self.callbacks:
            each("start", {"generation": generation})
        self.now += self.takes_ns[generation]
        for each in self.callbacks:
            each("stop", {"generation": generation})
        self.did.append(generation)
        self.count = (0, 0, 0)


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Collector:
    made = Collector()
    monkeypatch.setattr(garbage_file, "gc", made)
    monkeypatch.setattr(garbage_file, "now_ns", lambda: made.now)
    return made


@pytest.fixture
def garbage(collector: Collector) -> Garbage:
    made = Garbage()
    made.settle()
    collector.did.clear()
    return made


def figures(garbage: Garbage) -> tuple[int, int, int]:
    return garbage.collections, garbage.collecting_ns, garbage.longest_ns


def nothing() -> bool:
    return False


def test_what_the_actors_have_built_is_frozen_and_counts_as_no_pause(collector: Collector) -> None:
    garbage = Garbage()
    assert collector.thresholds == (YOUNG, 10, 10)
    garbage.settle()
    assert collector.did == [2, "freeze", 2]
    assert figures(garbage) == (0, 0, 0)


@pytest.mark.parametrize(
    ("count", "collects"),
    [((WORTHWHILE - 1, 11, 0), []), ((WORTHWHILE, 0, 0), [0]), ((WORTHWHILE, 10, 0), [0]), ((WORTHWHILE, 11, 99), [1])],
)
def test_before_a_sleep_the_young_are_collected_where_it_is_worth_it(
    collector: Collector, garbage: Garbage, count: tuple[int, int, int], collects: list[int]
) -> None:
    collector.count = count
    longest_s = garbage.rest(collector.now, None, nothing)
    assert collector.did == collects
    assert longest_s == (0.0 if collects else IDLE_NS / 1e9)  # 0: a finalizer may have given the loop something to do


def test_nothing_is_collected_while_something_waits(collector: Collector, garbage: Garbage) -> None:
    collector.count = (YOUNG, 0, 0)
    assert garbage.rest(collector.now, None, lambda: True)
    assert not collector.did


def test_a_collection_that_takes_longer_than_the_sleep_waits(collector: Collector, garbage: Garbage) -> None:
    collector.collect(0)
    collector.now += SHARE * 1_000
    collector.count = (YOUNG, 0, 0)
    assert garbage.rest(collector.now, 0.5e-6, nothing) == 0.5e-6
    assert collector.did == [0]
    assert garbage.rest(collector.now, 2e-6, nothing) == 0.0
    assert collector.did == [0, 0]


def test_the_young_take_a_bounded_share_of_the_time(collector: Collector, garbage: Garbage) -> None:
    began = collector.now
    while collector.now < began + 10**8:
        collector.count = (YOUNG, 0, 0)
        garbage.rest(collector.now, 0.001, nothing)
        collector.now += 500  # a message at once
    assert len(collector.did) > 900
    assert garbage.collecting_ns <= (collector.now - began) / SHARE + 1_000


def test_all_is_collected_once_in_a_long_sleep(collector: Collector, garbage: Garbage) -> None:
    assert garbage.rest(collector.now, None, nothing) == IDLE_NS / 1e9
    collector.now += IDLE_NS
    garbage.woke(collector.now)
    assert garbage.rest(collector.now, None, nothing) == 0.0
    assert collector.did == [2]
    assert garbage.rest(collector.now, None, nothing) is None  # an idle worker does not wake up again
    assert garbage.rest(collector.now, 7.0, nothing) == 7.0
    garbage.woke(collector.now)
    assert garbage.rest(collector.now, None, nothing) is not None


def test_a_sleep_that_ends_early_was_no_long_one(collector: Collector, garbage: Garbage) -> None:
    for _ in range(10):
        assert garbage.rest(collector.now, None, nothing) == IDLE_NS / 1e9
        collector.now += IDLE_NS - 1
        garbage.woke(collector.now)
        collector.now += 3 * IDLE_NS  # a handler runs
    assert garbage.rest(collector.now, IDLE_NS / 1e9, nothing) == IDLE_NS / 1e9  # nor is one that a timer will end
    garbage.woke(collector.now + IDLE_NS)
    garbage.rest(collector.now + IDLE_NS, None, nothing)
    assert not collector.did


def test_what_takes_long_waits_for_a_longer_sleep(collector: Collector, garbage: Garbage) -> None:
    collector.collect()
    assert garbage.rest(collector.now, None, nothing) == SHARE * 50_000_000 / 1e9
    collector.now += 2 * IDLE_NS
    garbage.woke(collector.now)
    assert garbage.rest(collector.now, None, nothing) == SHARE * 50_000_000 / 1e9
    assert collector.did == [2]


def test_a_message_that_comes_with_the_end_of_a_long_sleep_goes_first(collector: Collector, garbage: Garbage) -> None:
    garbage.rest(collector.now, None, nothing)
    collector.now += IDLE_NS
    garbage.woke(collector.now)
    assert garbage.rest(collector.now, None, lambda: True) == IDLE_NS / 1e9
    assert not collector.did


@pytest.mark.parametrize("own", [{"thresholds": PYTHONS}, {"thresholds": (0, 0, 0)}, {"is_enabled": False}])
def test_what_user_code_has_set_stands(collector: Collector, own: dict[str, Any]) -> None:
    garbage = Garbage()
    vars(collector).update(own)
    garbage.settle()
    collector.count = (YOUNG, 11, 11)
    assert garbage.rest(collector.now, None, nothing) is None
    assert not collector.did
    collector.collect(1)
    assert figures(garbage) == (1, 10_000, 10_000)


def test_pauses_are_added_up(collector: Collector, garbage: Garbage) -> None:
    for generation in (0, 2, 1):
        collector.collect(generation)
    assert figures(garbage) == (3, 50_011_000, 50_000_000)


# -- real workers ----------------------------------------------------------------------------------------------------


class Cycle:
    def __init__(self) -> None:
        self.me = self


class Litters(Actor):
    def __init__(self, folder: str, own: bool = False) -> None:
        self.folder, self.own = Path(folder), own

    def on_start(self) -> None:
        self.heap = [[number] for number in range(1000)]
        if self.own:
            gc.set_threshold(*PYTHONS)

    def kept(self) -> dict[str, Any]:
        looked_through = {id(each) for each in gc.get_objects()}
        frozen = sum(id(each) not in looked_through for each in self.heap)
        return {"frozen": frozen, "in all": gc.get_freeze_count(), "thresholds": gc.get_threshold()}

    def litter(self, cycles: int, name: str) -> None:
        made = [Cycle() for _ in range(cycles)]
        weakref.finalize(made[0], (self.folder / name).touch)

    def in_child(self) -> int:
        """What a forked child ends with that collects."""
        pid = os.fork()
        if not pid:
            Cycle()
            gc.collect()
            os._exit(7)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


class Says(Cycle):
    """Its finalizer gives the event loop something to do."""

    def __init__(self, loop: asyncio.AbstractEventLoop, path: Path) -> None:
        super().__init__()
        self.loop, self.path = loop, path

    def __del__(self) -> None:
        self.loop.call_soon(self.path.touch)


class Speaks(Actor):
    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)

    async def litter(self, name: str) -> None:
        Says(asyncio.get_running_loop(), self.folder / name)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("w")


@pytest.fixture(scope="module")
def running(folder: Path) -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLABWIRE_RUN_DIR", str(folder))
        graph = Graph("litters")
        litters, own = (
            graph.add(Litters, folder=str(folder)),
            graph.add(Litters, name="own", folder=str(folder), own=True),
        )
        speaks = graph.add(Speaks, folder=str(folder))
        graph.expose(litters.kept, litters.litter, litters.in_child, own.kept, own.litter, speaks.litter)
        with graph.run() as started:
            yield started


@pytest.fixture
def client(running: Any) -> Iterator[Any]:
    with slabwire.connect(running.name) as connected:
        yield connected


def test_a_worker_freezes_what_on_start_has_built(client: Any) -> None:
    kept = client.call("litters.kept")
    assert kept["frozen"] == 1000
    assert kept["in all"] > 1000
    assert kept["thresholds"][0] == YOUNG


def test_an_actor_that_sets_thresholds_of_its_own_is_left_alone(client: Any) -> None:
    kept = client.call("own.kept")
    assert kept["frozen"] == 0
    assert tuple(kept["thresholds"]) == PYTHONS


def test_an_idle_worker_frees_the_cycles_of_its_handlers(client: Any, folder: Path) -> None:
    client.call("litters.litter", 1, "one")
    wait_until((folder / "one").exists)


def test_many_cycles_are_collected_at_rest_and_seen_from_outside(running: Any, client: Any, folder: Path) -> None:
    before = worker_of(running, "litters")["collections"]
    client.call("litters.litter", 2 * WORTHWHILE, "many")
    wait_until((folder / "many").exists)
    seen = wait_until(lambda: (line := worker_of(running, "litters"))["collections"] > before and line)
    assert seen["collecting_s"] >= seen["longest_collection_s"] > 0
    (shown,) = (each for each in json.loads(top(running)) if each["name"] == "litters")
    assert shown["longest_collection_s"] >= seen["longest_collection_s"]
    with Control(running.name) as control:
        text = metrics_text(control.request(Metrics()))
    samples = {
        each.name: each.value
        for family in text_string_to_metric_families(text)
        for each in family.samples
        if each.labels.get("worker") == "litters"
    }
    assert samples["slabwire_worker_collections_total"] > before
    assert samples["slabwire_worker_collecting_seconds_total"] >= seen["collecting_s"]
    assert samples["slabwire_worker_longest_collection_seconds"] >= seen["longest_collection_s"]


def top(running: Any) -> str:
    result = invoke("top", running.name, "--once", "--format", "json")
    assert result.exit_code == 0, result.output
    return json.dumps(json.loads(result.output)["workers"])


def test_what_a_finalizer_gives_the_loop_to_do_is_done_at_once(client: Any, folder: Path) -> None:
    """And not when the worker next wakes up, for which there may be no reason."""
    client.call("speaks.litter", "said")
    wait_until((folder / "said").exists)


def test_a_forked_child_may_collect(client: Any) -> None:
    assert client.call("litters.in_child") == 7


def test_a_graph_in_one_process_leaves_its_collector_as_it_is(tmp_path: Path) -> None:
    def state() -> Any:
        return gc.get_threshold(), gc.isenabled(), list(gc.callbacks)

    before, frozen = state(), gc.get_freeze_count()
    graph = Graph("here")
    litters = graph.add(Litters, folder=str(tmp_path))
    graph.expose(litters.litter, litters.kept)
    with graph.run(in_process=True) as running:
        running.client.call("litters.litter", 2 * WORTHWHILE, "many")
        assert running.client.call("litters.kept")["frozen"] == 0
        assert state() == before
    assert state() == before
    assert gc.get_freeze_count() <= frozen  # what was frozen may have gone meanwhile
