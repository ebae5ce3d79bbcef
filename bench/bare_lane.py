"""The bare lane: shm alone. The payload is copied into a block, a record refers to it, a record comes back."""

from __future__ import annotations

import select
import struct
from collections.abc import Iterable
from typing import Any, Self

import numpy as np

from ..shm.bell import BELL, RECORDS, Bell, Ringer, new_doorbell
from ..shm.lane import LANE, RETURNS, Consumer, Producer, Source
from ..shm.layout import LINE_NBYTES
from ..shm.lease import Lease
from ..shm.segment import Segment
from ..shm.slab import SLAB, Pool, Slab
from .contestant import Mode, Payload, Seats, checksum
from .echo import EchoProcess, Order

_CALLS, _ANSWERS = 0, 1
_CAPACITY, _LEASES = 64, 128
_REQUEST = struct.Struct("<IIIIQ")  # row, slab, block, bytes, generation
_ANSWER = struct.Struct("<Q")
_BYTE = np.dtype(np.uint8)


class Waiter:
    """Waits for the next record of a lane: spinning, or parked each time."""

    def __init__(self, bell: Bell, lane: Consumer) -> None:
        self.bell = bell
        self.lane = lane
        self._poll = select.poll()
        self._poll.register(bell.fd, select.POLLIN)

    def wait(self, *, spinning: bool) -> None:
        lane = self.lane
        if spinning:
            while not lane.available():
                pass
            return
        while not lane.available():
            longest = self.bell.park(RECORDS)
            if not lane.available():
                self._poll.poll(None if longest is None else longest * 1000)
            self.bell.unpark()


class BareLane:
    name = "bare_lane"
    title = "bare lane"
    modes: tuple[Mode, ...] = (Mode.HOT, Mode.PARKED)

    def __init__(self, seats: Seats, sizes: Iterable[int]) -> None:
        self._apart = seats.apart
        self._spinning = False
        bells = [Segment.create(BELL, "bell of a bench") for _ in range(2)]
        doorbells = [new_doorbell() for _ in range(2)]
        lanes = [Segment.create(LANE, "lane of a bench", capacity=_CAPACITY, leases=_LEASES) for _ in range(2)]
        returns = [Segment.create(RETURNS, "returns of a bench", leases=_LEASES) for _ in range(2)]
        self._bell = Bell(bells[0], doorbells[0])
        self._far = Ringer(bells[1], doorbells[1])
        self._calls = Producer(lanes[_CALLS], returns[_CALLS], self._far)
        self._answers = Consumer(_ANSWERS, lanes[_ANSWERS], returns[_ANSWERS], self._far)
        self._waiter = Waiter(self._bell, self._answers)
        self._slabs: list[Slab] = []
        self._pool = Pool(self._grow, self._reap, limit_nbytes=1 << 40)
        self._fill_pool(sizes)
        self._segments = [*bells, *lanes, *returns, *(each.segment for each in self._slabs)]
        details = {
            "bells": [each.fd for each in bells],
            "doorbells": doorbells,
            "lanes": [each.fd for each in lanes],
            "returns": [each.fd for each in returns],
            "slabs": {str(each.identifier): each.segment.fd for each in self._slabs},
        }
        descriptors = [*doorbells, *(each.fd for each in self._segments)]
        self._echo = EchoProcess("bare_lane", seats.echo, details, descriptors)

    def _grow(self, block_nbytes: int, blocks: int) -> Slab:
        lines = blocks * block_nbytes // LINE_NBYTES
        segment = Segment.create(SLAB, "slab of a bench", blocks=blocks, payload_lines=lines)
        self._slabs.append(Slab(len(self._slabs), segment))
        return self._slabs[-1]

    def _reap(self) -> None:
        self._calls.reap()

    def _fill_pool(self, sizes: Iterable[int]) -> None:
        """The echo inherits the slabs, so they must be there before it is."""
        for nbytes in sizes:
            self._pool.reclaim(self._pool.take(nbytes))

    @property
    def pid(self) -> int:
        return self._echo.pid

    def begin(self, mode: Mode, nbytes: int, trips: int) -> None:
        self._spinning = self._apart and mode == Mode.HOT
        self._echo.order(mode, nbytes, trips, may_spin=self._apart)

    def trip(self, payload: Payload) -> int:
        calls, answers = self._calls, self._answers
        calls.reap()  # the block that the echo has just let go of is the one still in cache
        block = self._pool.take(payload.nbytes)
        block.bytes()[: payload.nbytes] = payload.data
        block.lends += 1
        row = calls.lend(block.slab.identifier, block.index, block)
        where = (row, block.slab.identifier, block.index, payload.nbytes, block.generation)
        _REQUEST.pack_into(calls.segment.bytes, calls.slot(), *where)
        calls.publish()
        self._waiter.wait(spinning=self._spinning)
        (answer,) = _ANSWER.unpack_from(answers.segment.bytes, answers.offset())
        answers.commit()
        return int(answer)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *others: Any) -> None:
        self._echo.close(now=kind is not None)
        self._bell.close()
        self._far.close()
        for each in self._segments:
            each.close_descriptor()


def serve(orders: Iterable[Order], details: dict[str, Any]) -> None:
    """The echo: a lease and a read-only array of each payload, as an actor gets them, but no message."""
    segments = [Segment.open(fd, BELL, writable=each == 1) for each, fd in enumerate(details["bells"])]
    far = Ringer(segments[0], details["doorbells"][0])
    bell = Bell(segments[1], details["doorbells"][1])
    lanes = [Segment.open(fd, LANE, writable=each == _ANSWERS) for each, fd in enumerate(details["lanes"])]
    returns = [Segment.open(fd, RETURNS, writable=each == _CALLS) for each, fd in enumerate(details["returns"])]
    calls = Consumer(_CALLS, lanes[_CALLS], returns[_CALLS], far)
    answers = Producer(lanes[_ANSWERS], returns[_ANSWERS], far)
    slabs = {
        int(name): Slab(int(name), Segment.open(fd, SLAB, writable=False)) for name, fd in details["slabs"].items()
    }
    waiter = Waiter(bell, calls)
    for order in orders:
        for _ in range(order.trips):
            waiter.wait(spinning=order.spinning)
            answer = _look(calls, slabs)
            answers.room()
            _ANSWER.pack_into(answers.segment.bytes, answers.slot(), answer)
            answers.publish()


def _look(calls: Consumer, slabs: dict[int, Slab]) -> int:
    """The checksum of the payload that the next record refers to; its lease ends here."""
    row, slab, block, nbytes, generation = _REQUEST.unpack_from(calls.segment.bytes, calls.offset())
    source = Source(calls.lane, row, calls.cursor + 1)
    lease = Lease(calls, source, slabs[slab], block, generation, nbytes)
    answer = checksum(lease.array(0, (nbytes,), _BYTE, None))
    calls.commit()
    return answer
