"""What a predecessor was handling when it died, read from its in-flight table, its lanes and what it had sent."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping

from ...shm.errors import CorruptLane
from ...shm.inflight import RUNNING_ROW, Inflight, Input
from ...shm.lease import Lease
from ...shm.producer import Producer
from ..actor.handler import Handler
from ..errors import DeadLetter, Interrupted
from ..message.header import Header, Kind, read_header
from .inlets import Inlets
from .ways_out import WaysOut
from .work import Work


def unfinished_works(
    table: Inflight,
    inlets: Inlets,
    ways: list[tuple[int, Producer]],
    ports: Mapping[int, Handler],
    adopted: Callable[[Header, int, int], Lease | None] = lambda *_: None,
) -> list[Work]:
    """The inputs to handle again, each with what had been sent for it already; clears rows that mean nothing any more.

    `ways` are all lanes out, with the names that `Work.sent` uses. `adopted` gives the lease by which the predecessor
    has passed on the block of a record. It ends with whoever has it now, so each input holds it until it is handled.
    Lanes with impossible words are left as they are: the first turn finds them.
    """
    works: dict[tuple[int, int], Work] = {}
    for left in table.live():
        work = _running(inlets, left, ports) if left.row == RUNNING_ROW else _kept(table, inlets, left, ports)
        if work is not None:
            works[left.lane, left.sequence] = work
    if works:
        _note_sent(works, ways)
    for work in works.values():
        work.lease = adopted(work.header, work.lane, work.sequence)
    return list(works.values())


def _running(inlets: Inlets, left: Input, ports: Mapping[int, Handler]) -> Work | None:
    """The record that a plain handler was working on, if it was not given back."""
    lane = inlets.find(left.lane)
    with contextlib.suppress(CorruptLane):
        if lane is not None and lane.tail == left.sequence and lane.available():
            header = inlets.header(lane, lane.cursor)
            work = Work(header, left.lane, left.sequence, left.attempt + 1, ports.get(header.target))
            work.floor, work.ways, work.pardons = left.ordinal, left.ways, left.pardons
            return work
    return None


def _kept(table: Inflight, inlets: Inlets, left: Input, ports: Mapping[int, Handler]) -> Work | None:
    """An input whose record was copied into the table."""
    lane = inlets.find(left.lane)
    header = read_header(table.record(left.row), 0)
    if lane is None or header.target not in ports:
        table.clear(left.row)  # its caller is gone
        return None
    with contextlib.suppress(CorruptLane):
        if lane.tail == left.sequence and lane.available():
            lane.commit()  # it died after the copy and before giving the record back
    work = Work(header, left.lane, left.sequence, left.attempt + 1, ports[header.target])
    work.row = left.row
    work.floor, work.ways, work.pardons = left.ordinal, left.ways, left.pardons
    return work


def _note_sent(works: Mapping[tuple[int, int], Work], ways: list[tuple[int, Producer]]) -> None:
    """Finds the outputs of these inputs among the records that still stand in the rings.

    The last output of an input is always there: the row's count misses at most the newest record of the process.
    """
    for way, producer in ways:
        # The oldest lies where the next one goes: the process may have died while it was writing that.
        oldest = max(0, producer.head - producer.capacity + 1)
        with contextlib.suppress(CorruptLane):
            for sequence in range(oldest, producer.head):
                sent = read_header(producer.record(sequence), 0)
                work = works.get((sent.cause_lane, sent.cause_sequence))
                if work is not None:
                    work.sent = {**work.sent, way: max(work.sent.get(way, work.floor), sent.ordinal + 1)}
                    if sent.kind in (Kind.END, Kind.ERROR):
                        work.last = sent.kind, sent.ordinal


def resumed(work: Work, ways_out: WaysOut, instance: str) -> Interrupted | None:
    """A partly sent stream goes on behind what was sent, if its handler can; else it ends with this error."""
    handler = work.handler
    if handler is None or not handler.spec.streams or not (work.floor or work.ways or work.sent):
        return None
    if handler.spec.resumable:
        ways = ways_out.ways(handler.spec.port, work.header)
        work.ordinal = min((work.sent_by(edge, way) for way, edge in enumerate(ways)), default=work.floor)
        return None
    work.ordinal = max(work.floor + bool(work.ways), *work.sent.values(), 0)
    return Interrupted(f"{instance} died in the middle of this stream")


def given_up(instance: str, attempts: int) -> DeadLetter:
    """The error of an input that is not begun once more: this would be one attempt too many."""
    often = "once" if attempts == 2 else f"{attempts - 1} times"
    return DeadLetter(f"{instance} died {often} while handling it; it is not tried again")
