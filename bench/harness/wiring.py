"""The shared memory between the processes of a bench: handed out as a supervisor does it, mapped by each on its own."""

from __future__ import annotations

import os
import select
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Self

from ...shm.bell import BELL, RECORDS, Bell, Ringer, new_doorbell
from ...shm.consumer import Consumer
from ...shm.inflight import INFLIGHT, Inflight
from ...shm.lane import LANE, RETURNS
from ...shm.layout import LINE_NBYTES, Layout
from ...shm.pool import Pool
from ...shm.producer import Producer
from ...shm.segment import Segment
from ...shm.slab import SLAB, Slab
from ...shm.wait import AdaptiveWait

_CAPACITY, _LEASES = 256, 128
_ROWS = 8


class Wiring:
    """Parties by number, each with a bell; lanes by number, each from one party to another.

    `create` is for the process that starts the others, `open` for those, with what `plain` gives. Slabs are party 0's:
    those that exist when another process starts are what it can read.
    """

    def __init__(self, plain: dict[str, Any]) -> None:
        self._plain = plain
        self._bells: list[Bell] = []
        self._ringers: list[Ringer] = []
        self._slabs: dict[int, Slab] = {}

    @classmethod
    def create(cls, parties: int, lanes: Sequence[tuple[int, int]], capacity: int = _CAPACITY) -> Self:
        """`lanes` say from which party to which."""
        bells = [Segment.create(BELL, "bell of a bench", calls=1).fd for _ in range(parties)]
        made = [
            {"producer": producer, "consumer": consumer, "fds": [each.fd for each in _new_lane(capacity)]}
            for producer, consumer in lanes
        ]
        table = Segment.create(INFLIGHT, "in-flight table of a bench", inputs=_ROWS).fd
        doorbells = [new_doorbell() for _ in range(parties)]
        return cls({"bells": bells, "doorbells": doorbells, "lanes": made, "slabs": {}, "table": table})

    @classmethod
    def open(cls, plain: dict[str, Any]) -> Self:
        """In a process that has inherited the descriptors."""
        return cls(plain)

    def plain(self) -> dict[str, Any]:
        return self._plain

    def descriptors(self) -> list[int]:
        """What other processes are to inherit."""
        lanes = (fd for lane in self._plain["lanes"] for fd in lane["fds"])
        plain = self._plain
        return [*plain["bells"], *plain["doorbells"], *lanes, *plain["slabs"].values(), plain["table"]]

    def slab_descriptors(self) -> list[int]:
        """Of the slabs alone."""
        return list(self._plain["slabs"].values())

    def bell(self, party: int) -> Bell:
        """A party's own."""
        bell = Bell(_mapped(self._plain["bells"][party], BELL), os.dup(self._plain["doorbells"][party]))
        self._bells.append(bell)
        return bell

    def ringer(self, party: int) -> Ringer:
        """To wake a party."""
        ringer = Ringer(
            _mapped(self._plain["bells"][party], BELL, writable=False), os.dup(self._plain["doorbells"][party])
        )
        self._ringers.append(ringer)
        return ringer

    def producer(self, number: int) -> Producer:
        lane = self._plain["lanes"][number]
        records, returns = lane["fds"]
        return Producer(
            _mapped(records, LANE), _mapped(returns, RETURNS, writable=False), self.ringer(lane["consumer"])
        )

    def consumer(self, number: int) -> Consumer:
        lane = self._plain["lanes"][number]
        records, returns = _mapped(lane["fds"][0], LANE, writable=False), _mapped(lane["fds"][1], RETURNS)
        return Consumer(number, records, returns, self.ringer(lane["producer"]))

    def table(self) -> Inflight:
        """The in-flight table of whoever handles messages."""
        return Inflight(_mapped(self._plain["table"], INFLIGHT))

    def pool(self, reap: Callable[[], Any], sizes: Iterable[int] = ()) -> Pool:
        """Party 0's blocks; there are some for each of `sizes` at once, so that who starts later can read them."""

        def collect() -> None:
            reap()

        pool = Pool(self._grow, collect, limit_nbytes=1 << 40)
        for nbytes in sizes:
            pool.reclaim(pool.take(nbytes))
        return pool

    def _grow(self, block_nbytes: int, blocks: int) -> Slab:
        lines = blocks * block_nbytes // LINE_NBYTES
        number = len(self._plain["slabs"]) + 1
        segment = Segment.create(SLAB, "slab of a bench", blocks=blocks, payload_lines=lines)
        self._plain["slabs"][str(number)] = segment.fd
        return Slab(number, segment)

    def slab(self, number: int) -> Slab:
        """To read another party's blocks."""
        if number not in self._slabs:
            self._slabs[number] = Slab(number, _mapped(self._plain["slabs"][str(number)], SLAB, writable=False))
        return self._slabs[number]

    def close(self) -> None:
        """Gives all descriptors back; memory goes with its last mapping."""
        for bell in self._bells:
            bell.close()
        for ringer in self._ringers:
            ringer.close()
        for fd in self.descriptors():
            os.close(fd)


def _new_lane(capacity: int) -> tuple[Segment, Segment]:
    records = Segment.create(LANE, "lane of a bench", capacity=capacity, leases=_LEASES)
    return records, Segment.create(RETURNS, "returns of a bench's lane", leases=_LEASES, streams=1)


def no_slabs(block_nbytes: int, blocks: int) -> Slab:
    """For the pool of a party that sends nothing that needs a block."""
    raise MemoryError(f"a bench's answer wanted {blocks} blocks of {block_nbytes} bytes")


def _mapped(fd: int, layout: Layout, *, writable: bool = True) -> Segment:
    segment = Segment.open(os.dup(fd), layout, writable=writable)
    segment.close_descriptor()
    return segment


class Waiter:
    """Waits for the next record of a lane: spinning, or parked each time."""

    def __init__(self, bell: Bell, lane: Consumer) -> None:
        self.lane = lane
        self._wait = AdaptiveWait(bell, may_spin=False)
        self._poll = select.poll()
        self._poll.register(bell.fd, select.POLLIN)

    def wait(self, *, spinning: bool) -> None:
        lane = self.lane
        if spinning:
            while not lane.available():
                pass
            return
        while not lane.available():
            self._wait.park(RECORDS, lane.available, self._sleep)

    def _sleep(self, longest_s: float | None) -> None:
        self._poll.poll(None if longest_s is None else longest_s * 1000)
