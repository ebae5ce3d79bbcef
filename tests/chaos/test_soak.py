"""A soak: mixed traffic for a long time, with callers that come and go and workers that die now and then.

All that arrives is whole, and at the end the graph holds no more than it did after a while.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import slabwire
from kill_stage import Forwards, Sink, Streams, checksum
from slabwire import Graph
from waiting import wait_until, worker_of

# From nothing to some MiB; the large ones come seldom.
SIZES = [0, 1, 90, 100, 1000, 5000, 65_536, 300_000, 1 << 20, 3 << 20]
WEIGHTS = [8, 8, 8, 8, 8, 8, 4, 2, 1, 0.3]
CALLERS = 4
VICTIMS = ["streams", "forwards", "second"]
# What a caller may be told when it gives up, or when the worker of its stream dies.
EXPECTED = (slabwire.DeadlineExceeded, slabwire.Interrupted, slabwire.Overloaded)


@pytest.fixture(autouse=True)
def run_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLABWIRE_RUN_DIR", str(tmp_path / "run"))


def mixed(folder: Path) -> Graph:
    graph = Graph("soak")
    streams, forwards = graph.add(Streams, max_attempts=100), graph.add(Forwards, max_attempts=100)
    first, second = (graph.add(Sink, name=name, path=os.devnull, max_attempts=100) for name in ("first", "second"))
    for sink in (first, second):
        graph.connect(forwards.plain, sink.take, capacity=16)
    graph.connect(forwards.coroutine, first.take)
    graph.expose(forwards.plain, reply=first.take)
    graph.expose(forwards.coroutine, streams.once, streams.again, streams.slowly)
    return graph


class Caller:
    """One thread with a client of its own, which it changes for a new one now and then."""

    def __init__(self, seed: int, until: float) -> None:
        self.dice = random.Random(seed)
        self.until = until
        self.counts: Counter[str] = Counter()
        self.kept: deque[dict[str, Any]] = deque()
        self.failure: BaseException | None = None
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        try:
            while time.monotonic() < self.until:
                with slabwire.connect("soak") as client:
                    for _ in range(self.dice.randrange(200)):
                        if time.monotonic() < self.until:
                            self._do(client)
        except BaseException as error:
            self.failure = error
        finally:
            self.kept.clear()

    def _do(self, client: Any) -> None:
        verbs: list[Callable[[Any], None]] = [self._call, self._call, self._stream, self._leave, self._hurry]
        verb = self.dice.choice(verbs)
        try:
            verb(client)
            self.counts[verb.__name__] += 1
        except EXPECTED as error:
            self.counts[type(error).__name__] += 1

    def _letter(self) -> dict[str, Any]:
        number = self.dice.getrandbits(30)
        (size,) = self.dice.choices(SIZES, WEIGHTS)
        x = np.frombuffer(self.dice.randbytes(size), np.uint8)
        return {"n": number, "check": checksum(number, x), "x": x}

    def _call(self, client: Any) -> None:
        sent = self._letter()
        back = client.call(f"forwards.{self.dice.choice(['plain', 'coroutine'])}", timeout_s=None, **sent)
        assert (back["n"], back["check"]) == (sent["n"], sent["check"])
        self._keep(back)

    def _keep(self, got: dict[str, Any]) -> None:
        """Some is looked at again later, when its sender has had every occasion to write over it."""
        self.kept.append(got)
        while len(self.kept) > 20:
            earlier = self.kept.popleft()
            assert checksum(earlier["n"], earlier["x"]) == earlier["check"]

    def _stream(self, client: Any) -> None:
        first, length = self.dice.getrandbits(20), self.dice.randrange(60)
        port = self.dice.choice(["once", "again", "slowly"])
        numbers = []
        for item in client.stream(f"streams.{port}", first, length):
            numbers.append(item["n"])
            self._keep(item)
        assert numbers == list(range(first, first + length))

    def _leave(self, client: Any) -> None:
        """A stream that nobody reads to its end."""
        items = client.stream("streams.again", 0, 100_000)
        for _ in range(self.dice.randrange(1, 30)):
            self._keep(next(items))
        items.close()

    def _hurry(self, client: Any) -> None:
        client.call("forwards.plain", timeout_s=self.dice.choice([0.0, 0.0005, 0.005]), **self._letter())


def killed_now_and_then(running: Any, dice: random.Random, until: float, every_s: float) -> int:
    """Kills workers until the time is over; returns how many."""
    kills, due = 0, time.monotonic() + every_s / 2
    while (now := time.monotonic()) < until:
        time.sleep(min(0.05, until - now))  # the length of the soak, nothing that is waited for
        if now >= due:
            due += every_s
            worker = worker_of(running, dice.choice(VICTIMS))
            if worker["state"] == "ready":
                os.kill(worker["pid"], signal.SIGKILL)
                kills += 1
    return kills


def soak(running: Any, seconds: float, seed: int, kill_every_s: float) -> Counter[str]:
    until = time.monotonic() + seconds
    callers = [Caller(seed * 100 + number, until) for number in range(CALLERS)]
    counts: Counter[str] = Counter(kills=killed_now_and_then(running, random.Random(seed), until, kill_every_s))
    for each in callers:
        each.thread.join()
        if each.failure is not None:
            raise each.failure
        counts += each.counts
    return counts


def held(running: Any) -> dict[str, int]:
    """What the graph holds when nobody calls: once everything that was in flight has ended."""

    def when_quiet() -> dict[str, Any] | None:
        status: dict[str, Any] = running.status()
        ready = all(each["state"] == "ready" for each in status["workers"])
        quiet = all(a["in_flight"] == a["waiting"] == a["outbox"] == 0 for w in status["workers"] for a in w["actors"])
        return status if ready and quiet and status["clients"] <= 1 else None

    status = wait_until(when_quiet)
    first = worker_of(running, "first")["pid"]
    return {
        "shared bytes": status["memory_bytes"],
        "descriptors of the supervisor": len(os.listdir(f"/proc/{running.pid}/fd")),
        "descriptors of a worker": len(os.listdir(f"/proc/{first}/fd")),
        "mappings of a worker": Path(f"/proc/{first}/maps").read_text().count("/memfd:slabwire"),
        "private bytes of a worker": _private_nbytes(first),
    }


def _private_nbytes(pid: int) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) << 10 for line in lines if line.startswith("Private_Dirty:"))


# How much more than after the first part may be held after the last. Blocks that came back are noticed when one is
# needed, and a successor's pool grows to what its traffic needs, so of shared memory it is some of the largest letters.
GROWTH = {"shared bytes": 64 << 20, "mappings of a worker": 24, "private bytes of a worker": 16 << 20}


def run_soak(tmp_path: Path, parts: list[float], kill_every_s: float) -> Counter[str]:
    counts: Counter[str] = Counter()
    with mixed(tmp_path).run() as running:
        after = []
        for seed, seconds in enumerate(parts):
            counts += soak(running, seconds, seed, kill_every_s)
            after.append(held(running))
        # Clients that have left are seen off from time to time, once nothing of theirs is needed.
        wait_until(lambda: not grown(after[0], held(running)))
    return counts


def grown(early: dict[str, int], late: dict[str, int]) -> dict[str, tuple[int, int]]:
    """What has grown beyond what it may."""
    return {name: (each, late[name]) for name, each in early.items() if late[name] > each + GROWTH.get(name, 2)}


def test_mixed_traffic_leaves_nothing_behind(tmp_path: Path) -> None:
    counts = run_soak(tmp_path, [4.0, 6.0], kill_every_s=2.5)
    assert counts["kills"] >= 2
    assert min(counts[each] for each in ("_call", "_stream", "_leave")) > 10


@contextmanager
def busy_processor() -> Iterator[None]:
    """Every core has something else to do."""
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in os.sched_getaffinity(0)]
    try:
        yield
    finally:
        for each in loops:
            each.kill()
            each.wait()


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_mixed_traffic_under_load_leaves_nothing_behind(tmp_path: Path) -> None:
    with busy_processor():
        counts = run_soak(tmp_path, [60.0, 60.0, 60.0, 120.0], kill_every_s=5.0)
    assert counts["kills"] > 20
    print(dict(counts))
