"""What a predecessor was handling when it died: found in its table, its lanes and what it had sent; handled again."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterable, Mapping

from ...shm.bell import now_ns
from ...shm.consumer import Consumer
from ...shm.errors import CorruptLane
from ...shm.inflight import RUNNING_ROW, Inflight, Input
from ...shm.lease import Lease
from ...shm.producer import Producer
from ..actor.handler import Handler
from ..errors import Interrupted
from ..message.capacities import Key
from ..message.header import Flag, Header, Kind, read_header
from ..message.item_batch import Sent, read_sent
from .inlets import Inlets
from .input_states import FINISHED
from .intake import Intake
from .outlets import Outlets
from .runs import Runs
from .ways_out import WaysOut
from .work import DELEGATE_KEY, REPLY_KEY, REPORT_KEY, Published, Work

# When a process dies the attempts at all inputs in flight go up, though one alone may be to blame. From the third
# attempt on each input is handled alone, so that only the guilty one goes on counting. An input that has run for this
# long is not to blame.
_FROM_ATTEMPT = 3
_PROVEN_AFTER_NS = 5_000_000_000


class Quarantine:
    """Holds an input that its actor may have died of, twice: no other is handled beside it. `work` is that input."""

    def __init__(self) -> None:
        self.work: Work | None = None

    @staticmethod
    def is_for(work: Work) -> bool:
        """Whether an input must be handled alone."""
        return work.attempt >= _FROM_ATTEMPT

    def holds(self) -> bool:
        """Whether an input is in quarantine, so that no other may begin."""
        if self.work is not None and (
            self.work.state is FINISHED or now_ns() > self.work.started_ns + _PROVEN_AFTER_NS
        ):
            self.work = None
        return self.work is not None

    def until_ns(self) -> int:
        """When the input in quarantine will have proven harmless, on CLOCK_MONOTONIC; 0 if there is none."""
        return self.work.started_ns + _PROVEN_AFTER_NS if self.work is not None else 0


class Redelivery:
    """Begins again what a predecessor had begun, before anything new. `waiting` has what is left of that.

    An input that the actor may have died of twice is handled alone, in `quarantine`. One thread.
    """

    def __init__(self, instance: str, outlets: Outlets, intake: Intake, runs: Runs) -> None:
        self.waiting: deque[Work] = deque()
        self.quarantine = Quarantine()
        self._instance = instance
        self._outlets = outlets
        self._intake = intake
        self._runs = runs

    def recover(self) -> None:
        """Finds what a predecessor was handling. To be called once, before the first step."""
        intake = self._intake
        ways, adopted = self._outlets.lanes(), self._outlets.endpoint.adopted
        kept = self._outlets.endpoint.kept_block
        self.waiting += unfinished_works(self._outlets.table, intake.inlets, ways, intake.ports, adopted, kept)
        self.waiting = deque(work for work in self.waiting if not self._is_told(work))
        intake.plain.recover(next((work for work in self.waiting if work.row == RUNNING_ROW), None))
        self._outlets.stats.reset_gauges()
        # Else a graph that drains would take an actor that is still starting for one with nothing to do.
        self._outlets.stats.show("in_flight", sum(work.row != RUNNING_ROW for work in self.waiting))

    def _is_told(self, work: Work) -> bool:
        """Notes in its row what an input has sent to its caller alone, before anything is published: the records and
        blocks that tell of it will be used anew. True where the end was sent, too: then nothing is left to do.
        """
        handler, published = work.handler, work.published
        if handler is None or published is None or work.row == RUNNING_ROW or published.delegated is not None:
            return False
        if not published.highest() or self._outlets.ways_out.ways(handler.spec.port, work.header) != [REPLY_KEY]:
            return False
        if published.last is not None and published.last[0] == Kind.END:
            self._outlets.table.clear(work.row)
            self._outlets.stats.count("redelivered")
            return True
        self._outlets.table.sent(work.row, published.highest())
        return False

    def is_to_begin(self, key: Key) -> bool:
        """Whether an input of this request waits here."""
        return any(work.header.key == key for work in self.waiting)

    def can_begin(self) -> bool:
        """Whether the next input need not wait until it is alone."""
        is_shut = self._intake.inlets.is_shut  # then a successor begins what waits
        return not is_shut and not (self.quarantine.is_for(self.waiting[0]) and self._proven_ns() > now_ns())

    def _proven_ns(self) -> int:
        """When the last of those that are in flight will have proven harmless, on CLOCK_MONOTONIC."""
        youngest = max((work.started_ns for work in self._runs.works.values()), default=0)
        return youngest + _PROVEN_AFTER_NS if youngest else 0

    def next_due_ns(self) -> int:
        """When an input that must be alone may begin beside those that go on for long; 0 if none waits for that."""
        return self._proven_ns() if self.waiting and self.quarantine.is_for(self.waiting[0]) else 0

    def begin_next(self) -> bool:
        """Begins the next input, of the predecessor's first; False if there is none, or no place for it yet."""
        if self.quarantine.holds():
            return False
        if not self.waiting:
            return self._intake.take_next()
        work = self.waiting[0]
        if not self.can_begin():
            return False
        lane = self._intake.inlets.find(work.lane)
        if lane is None:
            if work.row:
                self._outlets.table.clear(work.row)
        elif work.published is not None and work.published.was_delegated:
            self._see_off(work, lane)
        elif work.row == RUNNING_ROW:
            if not self._intake.begin(work, lane):
                return False
        else:
            self._begin_again(work, lane)
            if self.quarantine.is_for(work) and work.state is not FINISHED:
                self.quarantine.work = work
        self._outlets.stats.count("redelivered")
        self.waiting.popleft()
        return True

    def _begin_again(self, work: Work, lane: Consumer) -> None:
        """Starts an input that has its row from a predecessor."""
        self._outlets.table.restart(work.row, work.attempt)
        refusal = self._intake.refusal_of(work) or resumed(work, self._outlets.ways_out, self._instance)
        broken = self._intake.open(work, lane)
        refusal = refusal or broken
        ended = work.published.last if work.published is not None else None
        if ended is not None:
            self._end_again(work, *ended)
        elif refusal is None and work.handler is not None:
            self._runs.start(work, work.handler)
        else:
            self._intake.refuse(work, refusal)
            self._runs.end_unbegun(work)

    def _see_off(self, work: Work, lane: Consumer) -> None:
        """Its handler has handed it on, and does not run again. Its caller may not know yet where it lies."""
        if work.row == RUNNING_ROW:
            self._intake.end_delegated(work, lane)
            return
        self._outlets.table.restart(work.row, work.attempt)
        self._intake.open(work, lane)
        self._outlets.delegations.tell_again(work)
        self._runs.end_unbegun(work)

    def _end_again(self, work: Work, kind: int, ordinal: int) -> None:
        """The handler was done, and had begun to say so: the rest of the ways hear of it."""
        work.value = None
        work.ordinal = ordinal
        if kind == Kind.END and work.handler is not None:
            self._outlets.end_stream(work, [work.handler.spec.port])
        self._runs.end_unbegun(work)


def unfinished_works(
    table: Inflight,
    inlets: Inlets,
    ways: list[tuple[int, Producer]],
    ports: Mapping[int, Handler],
    adopted: Callable[[Header, int, int], Lease | None] = lambda *_: None,
    kept_block: Callable[[Header], memoryview | None] = lambda _: None,
) -> list[Work]:
    """The inputs to handle again, each with what had been sent for it already; clears rows that mean nothing any more.

    `ways` are all lanes out, with the names that `Published.by_edge` uses. `adopted` gives the lease by which the
    predecessor has passed on the block of a record. That lease ends when its last holder dies, so each input holds it
    until the input is handled. `kept_block` gives the block of a batch of items. Lanes with impossible words are left
    as they are: the first turn finds them.
    """
    works: dict[tuple[int, int], Work] = {}
    for left in table.live():
        work = _running(inlets, left, ports) if left.row == RUNNING_ROW else _kept(table, inlets, left, ports)
        if work is not None:
            work.published, work.pardons = Published(left.ordinal, left.ways), left.pardons
            work.has_taken = left.has_taken
            works[left.lane, left.sequence] = work
    if works:
        _note_sent(works, ways, kept_block)
    for work in works.values():
        work.lease = adopted(work.header, work.lane, work.sequence)
    return list(works.values())


def _running(inlets: Inlets, left: Input, ports: Mapping[int, Handler]) -> Work | None:
    """The record that a plain handler was working on, if it was not given back."""
    lane = inlets.find(left.lane)
    with contextlib.suppress(CorruptLane):
        if lane is not None and lane.tail == left.sequence and lane.available():
            header = inlets.header(lane, lane.cursor)
            return Work(header, left.lane, left.sequence, left.attempt + 1, ports.get(header.target))
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
    return work


def _note_sent(
    works: Mapping[tuple[int, int], Work],
    ways: list[tuple[int, Producer]],
    kept_block: Callable[[Header], memoryview | None],
) -> None:
    """Finds the outputs of these inputs among the records that still stand in the rings.

    The last output of an input is always there: the row's count misses at most the newest record of the process. That
    may be a whole batch of items. The block of that is as it was; of an older batch it may have been written over.
    """
    for edge, producer in ways:
        # The oldest lies where the next one goes: the process may have died while it was writing that.
        oldest = max(0, producer.head - producer.capacity + 1)
        with contextlib.suppress(CorruptLane):
            for sequence in range(oldest, producer.head):
                header = read_header(producer.record(sequence), 0)
                way = _way_of(header, edge)
                if way is None:
                    continue
                for sent in _sent_by(header, kept_block):
                    _note(works.get((sent.lane, sent.sequence)), way, sent)
                if way == DELEGATE_KEY:
                    _note_delegated(works.get((header.cause_lane, header.cause_sequence)), header, producer)


def _way_of(header: Header, lane: int) -> int | None:
    """The way that an output in a lane of this name has left by. A call that a handler has made is no output."""
    if lane != DELEGATE_KEY or header.flags & Flag.DELEGATED:
        return lane
    return None if header.reply_to else REPORT_KEY


def _sent_by(header: Header, kept_block: Callable[[Header], memoryview | None]) -> Iterable[Sent]:
    """The outputs that one record has published."""
    if header.kind != Kind.BATCH:
        return (Sent(header.cause_lane, header.cause_sequence, header.ordinal, header.kind),)
    block = kept_block(header)
    return read_sent(block, header.at, header.nbytes) if block is not None else ()


def _note(work: Work | None, edge: int, sent: Sent) -> None:
    if work is not None and (published := work.published) is not None:
        counted = published.by_edge.get(edge, published.floor)
        published.by_edge[edge] = max(counted, sent.ordinal + 1)
        if sent.kind in (Kind.END, Kind.ERROR):
            published.last = sent.kind, sent.ordinal


def _note_delegated(work: Work | None, header: Header, lane: Producer) -> None:
    if work is not None and work.published is not None:
        work.published.delegated = header.route, header.ordinal, lane


def resumed(work: Work, ways_out: WaysOut, instance: str) -> Interrupted | None:
    """A partly sent stream goes on behind what was sent, if its handler can; else it ends with this error. So does an
    input of whose caller's stream items were taken: they do not come again.
    """
    handler, published = work.handler, work.published
    if work.has_taken and published is not None:
        work.ordinal = published.highest()
        return Interrupted(f"{instance} died in the middle of the stream that it was sent")
    if handler is None or not handler.spec.streams or published is None or not published.highest():
        return None
    if handler.spec.resumable:
        edges = ways_out.ways(handler.spec.port, work.header)
        work.ordinal = min((published.count(edge, way) for way, edge in enumerate(edges)), default=published.floor)
        return None
    work.ordinal = published.highest()
    return Interrupted(f"{instance} died in the middle of this stream")
