"""The kill matrix below the runtime: a source, a forwarder and a sink over two lanes, struck at each named point."""

from __future__ import annotations

import mmap
import os
import select
import signal
import traceback
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from exchange import Exchange
from kill_stage import checksum, letter
from points import POINTS, Strikes
from slabwire.runtime.dataplane.endpoint import Endpoint
from slabwire.runtime.message.header import Kind, read_header
from slabwire.runtime.message.payload import Payload
from slabwire.shm.bell import BLOCKS, RECORDS, ROOM
from slabwire.shm.block import METADATA_NBYTES, size_class
from slabwire.shm.consumer import Consumer
from slabwire.shm.inflight import RUNNING_ROW, Inflight
from slabwire.shm.producer import Producer
from waiting import wait_until

SOURCE, FORWARDER, SINK = 1, 2, 3
INTO, ONWARD = 1, 2
KILL, STOP = int(signal.SIGKILL), int(signal.SIGSTOP)
# Letters of 40, 700 and 3000 bytes: in the record, and in blocks of two sizes.
LETTERS = (1, 3, 4)
HELD = 12
# A successor may still be starting: look again without being rung.
LOOK_AGAIN_MS = 100


def chain() -> Exchange:
    exchange = Exchange(SOURCE, FORWARDER, SINK)
    assert (exchange.connect(SOURCE, FORWARDER, 8, 32), exchange.connect(FORWARDER, SINK, 8, 32)) == (INTO, ONWARD)
    for owner in (SOURCE, FORWARDER):
        for size in {size_class(nbytes + METADATA_NBYTES) for nbytes in (700, 3000)}:
            exchange.add_slab(owner, size, HELD)
    return exchange


def letter_of(number: int) -> dict[str, Any]:
    return letter(6 * number + LETTERS[number % len(LETTERS)])


class Post:
    """What all three have: an endpoint that has taken over from its predecessor, and a bell to wait by."""

    def __init__(self, exchange: Exchange, identifier: int) -> None:
        self.endpoint: Endpoint = exchange.endpoint(identifier)
        self.table: Inflight = exchange.table(identifier)
        self.endpoint.recover()
        self._poll = select.poll()
        assert self.endpoint.bell is not None
        self.bell = self.endpoint.bell
        self._poll.register(self.bell.fd, select.POLLIN)

    def wait(self, ready: Callable[[], object], reasons: int) -> None:
        while not ready():
            self.bell.park(reasons)
            if not ready():
                self._poll.poll(LOOK_AGAIN_MS)
            self.bell.unpark()

    def has_block(self) -> bool:
        self.endpoint.reap()
        return self.endpoint.pool.blocks_out < HELD

    def own(self, sent: dict[str, Any]) -> dict[str, Any]:
        """The same letter in a block of one's own."""
        self.wait(self.has_block, BLOCKS)
        loan = self.endpoint.pool.loan(sent["x"].shape, sent["x"].dtype)
        loan[...] = sent["x"]
        return {**sent, "x": loan}

    def send(self, producer: Producer, value: dict[str, Any], attempt: int) -> None:
        if value["x"].nbytes < 100:
            self.wait(self.has_block, BLOCKS)
        payload = Payload(value, self.endpoint.pool)
        self.wait(lambda: payload.can_go(producer), ROOM | BLOCKS)
        payload.publish(producer, Kind.DATA, 0, (0, 0, attempt, *(0,) * 10))
        payload.close()

    def attempt_at(self, consumer: Consumer) -> int:
        """How often the record that is next was begun by predecessors, plus one."""
        begun = [left for left in self.table.live() if left.row == RUNNING_ROW and left.sequence == consumer.tail]
        return 1 + sum(left.attempt for left in begun)

    def open(self, consumer: Consumer) -> dict[str, Any]:
        header = read_header(consumer.segment.bytes, consumer.offset())
        value = self.endpoint.open(consumer, header, consumer.cursor)
        if checksum(value["n"], value["x"]) != value["check"]:
            raise ValueError(f"letter {value['n']} is torn")
        return dict(value)

    def is_quiet(self) -> bool:
        self.endpoint.reap()
        lent = any(producer.holders for producer in self.endpoint.producers.values())
        return not lent and self.endpoint.pool.blocks_out == 0


def run_source(exchange: Exchange, target: int, _notes: mmap.mmap) -> None:
    post = Post(exchange, SOURCE)
    producer = post.endpoint.producers[INTO]
    while producer.head < target:
        post.send(producer, post.own(letter_of(producer.head)), 1)
    post.wait(post.is_quiet, BLOCKS)


def run_forwarder(exchange: Exchange, target: int, _notes: mmap.mmap) -> None:
    """Each letter goes on once: a predecessor that died before it gave the record back may have sent it."""
    post = Post(exchange, FORWARDER)
    consumer, producer = post.endpoint.consumers[INTO], post.endpoint.producers[ONWARD]
    attempt = post.attempt_at(consumer)
    while consumer.tail < target:
        post.wait(consumer.available, RECORDS | BLOCKS)
        number = consumer.cursor
        post.table.begin_running(INTO, number, attempt)
        if producer.head == number:
            value = post.open(consumer)
            post.send(producer, value if number % 2 else post.own(value), attempt)
            del value
        consumer.commit()
        attempt = 1
        post.endpoint.reap()
    post.wait(post.is_quiet, BLOCKS)


def run_sink(exchange: Exchange, target: int, notes: mmap.mmap) -> None:
    """Counts first attempts and later ones, and looks at some letters again after a while."""
    post = Post(exchange, SINK)
    consumer = post.endpoint.consumers[ONWARD]
    attempt = post.attempt_at(consumer)
    kept: deque[dict[str, Any]] = deque()
    while consumer.tail < target:
        post.wait(consumer.available, RECORDS)
        number = consumer.cursor
        post.table.begin_running(ONWARD, number, attempt)
        value = post.open(consumer)
        if value["check"] != letter_of(number)["check"]:
            raise ValueError(f"letter {value['n']} came as number {number}")
        notes[number + (target if attempt > 1 else 0)] += 1
        kept.append(value)
        consumer.commit()
        attempt = 1
        if len(kept) > 3:
            earlier = kept.popleft()
            if checksum(earlier["n"], earlier["x"]) != earlier["check"]:
                raise ValueError(f"letter {earlier['n']} has changed")


RUNS: dict[str, Callable[[Exchange, int, mmap.mmap], None]] = {
    "source": run_source,
    "forwarder": run_forwarder,
    "sink": run_sink,
}
_BOTH = ["parked", "waking"]
POINTS_OF = {
    "source": ["loaned", "written", "published", *_BOTH],
    "forwarder": list(POINTS),
    "sink": ["popped", "begun", "handled", "committed", "released", *_BOTH],
}


class Children:
    """The three processes; whoever is killed gets a successor, whoever stops is let go on."""

    def __init__(self, victim: str, strikes: Strikes, *arguments: Any) -> None:
        self._victim, self._strikes, self._arguments = victim, strikes, arguments
        self.deaths = self.stops = 0
        self.pids = {name: self._spawn(name) for name in RUNS}

    def _spawn(self, name: str) -> int:
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                if name == self._victim:
                    self._strikes.arm()
                RUNS[name](*self._arguments)
                status = 0
            except BaseException:
                os.write(2, f"{name}: {traceback.format_exc()}".encode())
            finally:
                os._exit(status)
        return pid

    def are_done(self) -> bool:
        for name, pid in list(self.pids.items()):
            changed, status = os.waitpid(pid, os.WNOHANG | os.WUNTRACED)
            if not changed:
                continue
            if os.WIFSTOPPED(status):
                self.stops += 1
                os.kill(pid, signal.SIGCONT)
                continue
            del self.pids[name]
            if status:
                assert (name, os.waitstatus_to_exitcode(status)) == (self._victim, -KILL)
                self.deaths += 1
                self.pids[name] = self._spawn(name)
        return not self.pids

    def end(self) -> None:
        for pid in self.pids.values():
            os.kill(pid, KILL)
            os.waitpid(pid, 0)


def run_chain(folder: Path, victim: str, planned: list[tuple[str, int, int]], target: int) -> None:
    strikes = Strikes.plan(folder, planned)
    exchange, notes = chain(), mmap.mmap(-1, 2 * target)
    children = Children(victim, strikes, exchange, target, notes)
    try:
        wait_until(children.are_done)
    finally:
        children.end()
    assert strikes.is_over(), f"{strikes.done()} of {len(planned)} points were passed"
    assert (children.stops, children.deaths) == (_count(planned, STOP), _count(planned, KILL))
    # The first attempt may have ended right before it was noted, but never twice.
    firsts, again = notes[:target], notes[target:]
    assert set(firsts) <= {0, 1}
    assert all(first or other for first, other in zip(firsts, again, strict=True)), "letters were lost"
    assert sum(again) <= (children.deaths if victim == "sink" else 0)
    _check_all_is_back(exchange, target)
    notes.close()
    exchange.close()


def _count(planned: list[tuple[str, int, int]], sign: int) -> int:
    return sum(each == sign for _, each, _ in planned)


def _check_all_is_back(exchange: Exchange, target: int) -> None:
    """A successor of each finds nothing that is waiting, lent or out."""
    for identifier in (SOURCE, FORWARDER, SINK):
        endpoint = exchange.endpoint(identifier)
        endpoint.recover()
        endpoint.reap()
        stats = endpoint.pool.stats()
        assert (stats["out"], stats["free"]) == (0, stats["slabs"] * HELD)
        for producer in endpoint.producers.values():
            assert (producer.head, producer.waiting, producer.holders) == (target, 0, {})
        endpoint.close()


@pytest.mark.parametrize("victim", RUNS)
def test_a_process_is_struck_at_each_point(tmp_path: Path, victim: str) -> None:
    passes = {"parked": 3, "waking": 3}
    planned = [(point, sign, passes.get(point, 60)) for point in POINTS_OF[victim] for sign in (STOP, KILL)]
    run_chain(tmp_path / "strikes", victim, planned, 4000)


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("victim", "point"), [(each, point) for each in RUNS for point in POINTS_OF[each]])
def test_a_process_is_struck_at_a_point_again_and_again(tmp_path: Path, victim: str, point: str) -> None:
    spread = 3 if point in _BOTH else 40  # who has enough to do parks seldom
    planned = [(point, sign, 1 + number * 7 % spread) for number in range(60) for sign in (KILL, STOP, KILL)]
    run_chain(tmp_path / "strikes", victim, planned, 20_000)
