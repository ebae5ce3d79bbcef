"""Reply streams, their credit and their batches against a plain model, with deaths of every party as steps."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

import slabwire
from points import POINTS
from slabwire import Actor, Graph, ReplyStream, resumable
from slabwire.runtime.cell import redelivery
from slabwire.runtime.cell.open_stream import OpenStream
from slabwire.runtime.dataplane.stream_group import GroupedStream
from slabwire.runtime.message.capacities import STREAM_WINDOW
from slabwire.runtime.message.item_batch import MOST_ITEM_NBYTES
from slabwire.shm.inflight import RUNNING_ROW
from slabwire.shm.producer import Producer
from stepped_graph import ReadingClient, ReadingWorker, SteppedGraph, dying

CALLS = 6  # of each reader: so half of the lane back to it takes six records of items
POINTS_OF_SENDERS = [each for each in POINTS if each not in ("released", "forwarded", "parked", "waking")]
POINTS_OF_READERS = ["handled", "committed", "released", "published"]
AMID = "amid the notes"
WORDS = 8
LARGE = MOST_ITEM_NBYTES + 1


class Source(Actor):
    """Has a stream for each input, and sends what it is told to."""

    def __init__(self) -> None:
        self.begun: dict[int, ReplyStream[Any]] = {}

    @resumable
    def again(self, number: int, sent: int = 0) -> ReplyStream[Any]:
        return self._begin(number, sent)

    def once(self, number: int) -> ReplyStream[Any]:
        return self._begin(number, 0)

    def _begin(self, number: int, sent: int) -> ReplyStream[Any]:
        stream: ReplyStream[Any] = self.reply_stream()
        stream.tag = sent
        self.begun[number] = stream
        return stream


class Sink(Actor):
    """Reads, as a worker with calls does."""

    def nothing(self) -> None: ...


def graph_of_both() -> Graph:
    graph = Graph("model", client_calls=CALLS)
    source = graph.add(Source, concurrency=3 * CALLS, max_attempts=1000)
    sink = graph.add(Sink, calls=CALLS)
    graph.expose(source.again, source.once, sink.nothing)
    return graph


@dataclass
class Read:
    """One stream in the model. The source has made `made` items (no more, where it has died since), of which the reader
    has seen `seen`. `may_end` is how it may end: with None, or with errors of these types.
    """

    number: int
    port: str
    reader: str
    stream: GroupedStream
    may_end: set[type[BaseException] | None]
    made: int = 0
    seen: int = 0


def packed(ordinal: int, *, is_large: bool) -> Any:
    return ordinal.to_bytes(WORDS, "little").ljust(LARGE) if is_large else ordinal


def unpacked(item: Any) -> int:
    return item if isinstance(item, int) else int.from_bytes(item[:WORDS], "little")


class StreamMachine(RuleBasedStateMachine):
    """One source, two readers: a worker, whose successor has the same lanes, and a client, whose lanes go with it."""

    def __init__(self) -> None:
        super().__init__()
        self.graph = SteppedGraph(graph_of_both())
        self.readers: dict[str, Any] = {
            "worker": ReadingWorker(self.graph, "sink"),
            "client": ReadingClient(self.graph, CALLS),
        }
        self.reads: dict[int, Read] = {}
        self.begun = 0

    # -- the source --------------------------------------------------------------------------------------------------

    def _open(self) -> list[tuple[Read, OpenStream]]:
        """The streams that the source has open and somebody reads."""
        begun = self.graph.actor("source").begun
        found = [(read, begun[number]) for number, read in self.reads.items() if number in begun]
        return [(read, stream) for read, stream in found if stream.is_open]

    @rule()
    def source_works(self) -> None:
        self.graph.work("source")

    @rule(data=st.data(), most=st.sampled_from([1, 2, 30, 100]), is_large=st.booleans(), ends=st.integers(0, 3))
    def publish(self, data: st.DataObject, most: int, is_large: bool, ends: int) -> None:
        """What there is room for. It goes at once, whatever else waits."""
        going = self._some(data)
        counts = {read.number: min(most, stream.room) for read, stream in going}
        pairs = self._made(going, counts, is_large=is_large)
        records = len(pairs) + 1 if is_large else 1  # a large item has one of its own
        is_full = {read.number: self._free_records(read) < records for read, _ in going}
        self._publish(pairs, going[:ends])
        for read, stream in going:
            assert not counts[read.number] or is_full[read.number] or not stream.work.outbox, "it was held up"

    @rule(
        data=st.data(),
        most=st.integers(1, STREAM_WINDOW),
        is_large=st.booleans(),
        ends=st.integers(0, 3),
        looks=st.booleans(),
    )
    def publish_without_asking(self, data: st.DataObject, most: int, is_large: bool, ends: int, looks: bool) -> None:
        """More than there is room for: the rest waits with the source, as long as that is not too much. Its readers may
        have made room that the source has not seen.
        """
        going = self._some(data)
        for read, _ in going if looks else []:
            self.readers[read.reader].look()
        waits = {read.number: STREAM_WINDOW - len(stream.work.outbox) for read, stream in going}
        pairs = self._made(going, {number: min(most, left) for number, left in waits.items()}, is_large=is_large)
        self._publish(pairs, going[:ends])

    def _some(self, data: st.DataObject) -> list[tuple[Read, OpenStream]]:
        going = self._open()
        which = data.draw(st.sets(st.integers(0, len(going) - 1), min_size=1, max_size=4)) if going else set()
        return [going[each] for each in sorted(which)]

    @staticmethod
    def _made(
        going: list[tuple[Read, OpenStream]], counts: dict[int, int], *, is_large: bool = False
    ) -> list[tuple[OpenStream, Any]]:
        """The next items of each, one after the other as steps make them."""
        pairs = []
        for step in range(max(counts.values(), default=0)):
            for read, stream in going:
                if step < counts[read.number]:
                    pairs.append((stream, packed(read.made, is_large=is_large and step % 2 == 0)))
                    read.made += 1
        return pairs

    def _publish(self, pairs: list[tuple[OpenStream, Any]], ending: list[tuple[Read, OpenStream]]) -> None:
        for read, _ in ending:
            read.may_end.add(None)
        self.graph.actor("source").publish(pairs, ended=[stream for _, stream in ending])

    def _producer(self, read: Read) -> Producer:
        replies = self.graph.workers["source"].cells["source"].outlets.replies
        return replies[self.readers[read.reader].caller._endpoint.identifier]

    def _free_records(self, read: Read) -> int:
        producer = self._producer(read)
        return producer.free_records(producer.capacity) - producer.capacity // 2

    @rule(data=st.data())
    def fail(self, data: st.DataObject) -> None:
        for read, stream in self._some(data)[:1]:
            read.may_end |= {slabwire.HandlerError, None}
            stream.fail(ValueError("as told"))
            read.may_end.discard(None)

    @rule(
        data=st.data(),
        point=st.sampled_from([*POINTS_OF_SENDERS, AMID]),
        passes=st.sampled_from([1, 1, 2, 3, 6]),
        amid=st.sampled_from(["work", "publish", "publish_without_asking"]),
        is_large=st.booleans(),
        ends=st.integers(0, 3),
        looks=st.integers(0, 3),
    )
    def source_dies(
        self, data: st.DataObject, point: str, passes: int, amid: str, is_large: bool, ends: int, looks: int
    ) -> None:
        """At a point of what it is about to do, or behind that. Readers read on while it is away."""
        going = self._some(data) if amid != "work" else []
        counts = {
            read.number: min(5, stream.room if amid == "publish" else STREAM_WINDOW - len(stream.work.outbox))
            for read, stream in going
        }
        pairs = self._made(going, counts, is_large=is_large)
        with dying(point, passes):
            if amid == "work":
                self.graph.work("source")
            else:
                self._publish(pairs, going[:ends])
        before = {read.number: read.made for read in self.reads.values()}
        self.graph.end("source")
        for read in list(self.reads.values())[:looks]:
            self.readers[read.reader].look()
            self._take(read)
            read.stream.tell_read()
        self.graph.start("source")
        self.graph.work("source")
        begun = self.graph.actor("source").begun
        for number, read in self.reads.items():
            if number in begun:
                assert read.seen <= begun[number].tag <= before[number]
                read.made = begun[number].tag
                read.may_end.clear()
            elif read.port == "once":
                read.may_end.add(slabwire.Interrupted)

    # -- the readers -------------------------------------------------------------------------------------------------

    @rule(
        reader=st.sampled_from(["worker", "client"]),
        port=st.sampled_from(["again", "again", "once"]),
        many=st.integers(1, 3),
        works=st.booleans(),
    )
    def begin(self, reader: str, port: str, many: int, works: bool) -> None:
        for _ in range(many):
            self._begin(reader, port)
        if works:
            self.graph.work("source")

    def _begin(self, reader: str, port: str) -> None:
        group = self.readers[reader].group
        if len(group) == CALLS:
            return
        self.begun += 1
        with suppress(slabwire.Overloaded):  # the source has not read what was cancelled
            stream = group.begin(f"source.{port}", self.begun)
            self.reads[self.begun] = Read(self.begun, port, reader, stream, set())

    @rule(reader=st.sampled_from(["worker", "client"]))
    def look(self, reader: str) -> None:
        self.readers[reader].look()

    @precondition(lambda self: self.reads)
    @rule(data=st.data(), looks=st.booleans(), tells=st.booleans())
    def take(self, data: st.DataObject, looks: bool, tells: bool) -> None:
        read = self._any(data)
        if looks:
            self.readers[read.reader].look()
        self._take(read)
        if tells:
            read.stream.tell_read()

    def _any(self, data: st.DataObject) -> Read:
        return self.reads[data.draw(st.sampled_from(list(self.reads)))]

    def _take(self, read: Read) -> None:
        items = [unpacked(each) for each in read.stream.take()]
        assert items == list(range(read.seen, read.seen + len(items)))
        assert len(items) <= STREAM_WINDOW
        read.seen += len(items)
        assert read.seen <= read.made
        if read.stream.is_over:
            kind = type(read.stream.error) if read.stream.error is not None else None
            assert kind in read.may_end, read.stream.error
            assert kind is slabwire.Interrupted or read.seen == read.made
            del self.reads[read.number]

    @precondition(lambda self: self.reads)
    @rule(data=st.data(), how=st.sampled_from(["tell_read", "pause", "resume", "cancel"]))
    def treat(self, data: st.DataObject, how: str) -> None:
        read = self._any(data)
        getattr(read.stream, how)()
        if how == "cancel":
            del self.reads[read.number]

    @rule(
        reader=st.sampled_from(["worker", "client"]),
        point=st.sampled_from(POINTS_OF_READERS),
        passes=st.integers(1, 3),
    )
    def reader_dies(self, reader: str, point: str, passes: int) -> None:
        """While it takes in or begins a stream, or behind that; what it had begun is nobody's. The source goes on while
        it is away.
        """
        with dying(point, passes):
            self.readers[reader].look()
            self._begin(reader, "again")
        self.readers[reader].end()
        going = self._open()
        self._publish(self._made(going, {read.number: min(2, stream.room) for read, stream in going}), [])
        self.graph.work("source")
        self.reads = {number: read for number, read in self.reads.items() if read.reader != reader}
        self.readers[reader].start()

    # -- what always holds -------------------------------------------------------------------------------------------

    @invariant()
    def no_stream_is_further_ahead_than_the_window(self) -> None:
        begun = self.graph.actor("source").begun
        for number, read in self.reads.items():
            stream = begun.get(number)
            if stream is not None and stream.is_open:
                waiting = sum(dispatch.ordinal < stream.work.ordinal for dispatch in stream.work.outbox)
                assert stream.work.ordinal - waiting - read.seen <= STREAM_WINDOW

    def teardown(self) -> None:
        """All readers read, all streams end: then nothing is left."""
        try:
            self._come_to_an_end()
            self._nothing_is_left()
        finally:
            for each in self.readers.values():
                each.close()
            self.graph.close()

    def _come_to_an_end(self) -> None:
        for _ in range(200):
            if not self.reads:
                break
            self.graph.work("source")
            self._publish([], self._open())
            for read in list(self.reads.values()):
                read.stream.resume()
                self.readers[read.reader].look()
                self._take(read)
                read.stream.tell_read()
        assert not self.reads, "streams do not end"

    def _nothing_is_left(self) -> None:
        for reader in self.readers.values():
            reader.look()
        self.graph.work("source")
        worker = self.graph.workers["source"]
        cell = worker.cells["source"]
        assert not [each for each in worker.wiring.tables["source"].live() if each.row != RUNNING_ROW]
        assert not cell._runs.works
        assert not cell.outlets.callers._credits
        assert not self.graph.board.unfinished()
        assert not any(each.caller.in_flight for each in self.readers.values())
        for each in self.graph.workers.values():
            each.endpoint.reap()
            assert each.endpoint.pool.blocks_out == 0


@pytest.fixture(autouse=True)
def nobody_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """An input at its third attempt is handled alone for 5 s, which says nothing of streams."""
    monkeypatch.setattr(redelivery, "_PROVEN_AFTER_NS", 0)


class LongStreamMachine(StreamMachine):
    """The same at length."""


def settings_of(examples: int, steps: int) -> settings:
    return settings(
        max_examples=examples, stateful_step_count=steps, deadline=None, suppress_health_check=list(HealthCheck)
    )


StreamMachine.TestCase.settings = settings_of(20, 40)
LongStreamMachine.TestCase.settings = settings_of(2_000, 60)
TestStreams = StreamMachine.TestCase
TestStreamsAtLength = pytest.mark.long(pytest.mark.timeout(3600)(LongStreamMachine.TestCase))
