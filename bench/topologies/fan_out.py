"""What it costs a sender to publish one payload to several readers, and how often memory holds it."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import ExitStack
from time import thread_time_ns
from types import TracebackType
from typing import Any, Self

import numpy as np

from ...runtime.dataplane.pending import deadline_of
from ...runtime.message.encoding import decode
from ...runtime.message.header import Kind, read_header
from ...runtime.message.lending import source_of
from ...runtime.message.payload import Payload
from ...shm.block import size_class
from ...shm.lease import Lease
from ...shm.pool import Pool
from ..harness.contestant import BenchError, Seats
from ..harness.echo import EchoProcess, Order
from ..harness.measure import Case, Cell, cells_of
from ..harness.process import mapped_inodes
from ..harness.report import Bar, Report, flatness
from ..harness.settings import Settings, command_of, pinned
from ..harness.wiring import Waiter, Wiring, no_slabs

_READERS = (1, 2, 4)
_NBYTES = 1 << 20
_MESSAGES, _QUICK_MESSAGES = 40, 6
_WARM_UP = 5
_MOST = 1.3
_TIMEOUT_S = 60.0
_PAGE = 4096
_MIB = 1 << 20


class FanOut:
    """One sender, and readers that each have a lane there and one back. All readers share a CPU, and park."""

    name = "message"
    title = "message of 1 MiB"

    def __init__(self, seats: Seats, readers: int) -> None:
        self.readers = readers
        there = [(0, reader) for reader in range(1, readers + 1)]
        back = [(reader, 0) for reader in range(1, readers + 1)]
        self._wiring = Wiring.create(readers + 1, [*there, *back])
        self._out = [self._wiring.producer(each) for each in range(readers)]
        self._back = [self._wiring.consumer(readers + each) for each in range(readers)]
        self.pool = self._wiring.pool(self._reap, [_NBYTES])
        bell = self._wiring.bell(0)
        self._waiters = [Waiter(bell, each) for each in self._back]
        self._echoes: list[EchoProcess] = []
        for reader in range(1, readers + 1):
            details = {"wiring": self._wiring.plain(), "reader": reader, "readers": readers}
            self._echoes.append(
                EchoProcess("topologies.fan_out:serve", seats.echo, details, self._wiring.descriptors())
            )

    def _reap(self) -> None:
        for each in self._out:
            each.reap()

    def visit(self, messages: int) -> tuple[list[float], int]:
        """The sender's CPU time for each message, in microseconds, and how many answers were checked."""
        for each in self._echoes:
            each.order(_NBYTES, _WARM_UP + messages, spinning=False)
        payload = np.zeros(_NBYTES, np.uint8)
        took = []
        for number in range(_WARM_UP + messages):
            payload[::_PAGE] = number % 251
            began = thread_time_ns()
            self._publish(payload)
            took.append((thread_time_ns() - began) / 1e3)
            self._check(number % 251 * (_NBYTES // _PAGE))
        return took[_WARM_UP:], len(took) * self.readers

    def _publish(self, payload: Any) -> None:
        head = (0, 0, 0, 1, 0, 1, deadline_of(_TIMEOUT_S), 1, 2, 0, 0, 0, 0)
        encoded = Payload({"payload": payload}, self.pool, is_fields=True)
        for lane in self._out:
            if not encoded.can_go(lane):
                raise BenchError("a reader did not give back what it was sent")
            encoded.publish(lane, Kind.DATA, 0, head)
        encoded.close()

    def _check(self, expected: int) -> None:
        """Waits for all readers; each still holds what it got."""
        for waiter, lane in zip(self._waiters, self._back, strict=True):
            waiter.wait(spinning=False)
            found = decode(read_header(lane.segment.bytes, lane.offset()), None)
            lane.commit()
            if found != expected:
                raise BenchError(f"a reader of {self.readers} read the sum {found} and not {expected}")

    def held(self) -> dict[str, float]:
        """While all readers hold one message: how many blocks are out, and the pages of slabs in all processes: `rss`
        counts those that n processes map n times, `pss` once.
        """
        self._reap()
        self.pool.collect()
        pids = [os.getpid(), *(each.pid for each in self._echoes)]
        own = {os.fstat(fd).st_ino for fd in self._wiring.slab_descriptors()}
        mapped = [each for pid in pids for inode, each in mapped_inodes(pid) if inode in own]
        out = self.pool.used_nbytes / size_class(_NBYTES)
        return {"out": out, "rss": sum(each.rss for each in mapped), "pss": sum(each.pss for each in mapped)}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for each in self._echoes:
            each.close(now=kind is not None)
        self._wiring.close()


def serve(orders: Iterable[Order], details: dict[str, Any]) -> None:
    """One reader: adds up a byte of each page, and holds what it read until the next message has come."""
    wiring = Wiring.open(details["wiring"])
    lane = wiring.consumer(details["reader"] - 1)
    out = wiring.producer(details["readers"] + details["reader"] - 1)
    pool = Pool(no_slabs, out.reap, limit_nbytes=1 << 40)  # type: ignore[arg-type]
    waiter = Waiter(wiring.bell(details["reader"]), lane)
    held = None
    for order in orders:
        for _ in range(order.trips):
            waiter.wait(spinning=order.spinning)
            header = read_header(lane.segment.bytes, lane.offset())
            lease = Lease(
                lane,
                source_of(header, lane.lane, lane.cursor),
                wiring.slab(header.slab),
                header.block,
                header.generation,
                0,
            )
            held = decode(header, lease)["payload"]
            del lease
            lane.commit()
            total = int(held[::_PAGE].sum(dtype=np.int64))
            Payload(total, pool).publish(out, Kind.REPLY, 0, (0, 0, 1, *header[5:12], lane.lane, 0, lane.cursor))
    del held


def measure_fan_out(settings: Settings) -> Report:
    """The sender's CPU time for a message of 1 MiB to 1, 2 and 4 readers, and how often memory holds it.

    CPU time, not time by the clock: the readers run meanwhile, on another CPU. They park, so it includes waking them.
    Each holds its message until the next one: what memory holds is counted then.
    """
    seats = Seats.choose()
    with ExitStack() as stack:
        fans = {each: stack.enter_context(FanOut(seats, each)) for each in _READERS}
        stack.enter_context(pinned(seats.caller))

        def visit(cell: Cell) -> tuple[list[float], int]:
            return fans[int(cell.case.x)].visit(settings.few(_MESSAGES, _QUICK_MESSAGES))

        cases = [Case(f"1 MiB to {each}", each) for each in _READERS]
        results = settings.measure(cells_of(cases, ["message"]), visit)
        held = {str(each): fan.held() for each, fan in fans.items()}
    report = Report("fan_out", "of the sender's CPU for a message", results, {"message": FanOut.title})
    report.figures = {"held": held}
    report.notes = [
        f"held by {readers}: {each['out']:.0f} block out; of slabs all processes map {each['rss'] / _MIB:.1f} MiB "
        f"together (RSS), which are {each['pss'] / _MIB:.1f} MiB of memory (PSS)"
        for readers, each in held.items()
    ]
    ratio = flatness(results, "message", 1, 4)
    if ratio is not None:
        report.bars = [
            Bar("CPU time for 4 readers / for one", ratio, most=_MOST),
            Bar("blocks that hold a message with 4 readers", held["4"]["out"], most=1.0),
            Bar("memory of slabs (PSS) with 4 readers / with one", held["4"]["pss"] / held["1"]["pss"], most=1.05),
        ]
    return report


command = command_of(measure_fan_out, rounds=15)
