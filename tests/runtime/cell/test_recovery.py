"""What a successor reads from the table and the lanes of one that died: what was begun, and what was sent for it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np
import pytest

from edge import LANE_NUMBER, Edge
from exchange import Exchange
from slabwire.runtime.cell.inlets import Inlets
from slabwire.runtime.cell.redelivery import unfinished_works
from slabwire.runtime.cell.work import DELEGATE_KEY, MOVED_WAY, REPORT_KEY, Work
from slabwire.runtime.control.channel import Ask
from slabwire.runtime.message.header import Flag, Kind, read_header
from slabwire.runtime.message.payload import Payload
from slabwire.shm.block import size_class
from slabwire.shm.inflight import INFLIGHT, RUNNING_ROW, Inflight
from slabwire.shm.producer import Producer
from slabwire.shm.segment import Segment

WAY = 3
ROUTE = 5
CAPACITY = 4


class Stage:
    """One input in the lane in, its row in the table, and a lane out that has been filled once already."""

    def __init__(self) -> None:
        self.inlet, self.outlet = Edge(CAPACITY), Edge(CAPACITY)
        self.table = Inflight(Segment.create(INFLIGHT, "a table", inputs=4))
        self.pool = self.inlet.pool()
        self.caller = self.inlet.producer()
        Payload(1, self.pool).publish(self.caller, Kind.DATA, 0, (0,) * 13)
        self.consumer = self.inlet.consumer()
        self.reader = self.outlet.consumer()
        self.producer = self.outlet.producer()
        for _ in range(CAPACITY):
            self.send(self.producer, cause=99, ordinal=0)
        while self.reader.available():
            self.reader.commit()

    def send(
        self, producer: Producer, *, cause: int, ordinal: int, kind: int = Kind.DATA, flags: int = 0, reply_to: int = 0
    ) -> None:
        head = (0, 0, 1, reply_to, ROUTE, 0, 0, 0, 0, 0, LANE_NUMBER, ordinal, cause)
        Payload(None, self.pool).publish(producer, kind, flags, head)

    def unfinished(self, way: int = WAY) -> Work:
        inlets = Inlets(routes=1)
        inlets.add(self.inlet.consumer())
        table = Inflight(self.table.segment)
        (work,) = unfinished_works(table, inlets, [(way, self.outlet.producer())], {})
        return work

    def close(self) -> None:
        self.table.segment.close()
        self.inlet.close()
        self.outlet.close()
        vars(self).clear()  # the run of the tests holds this object a little longer than its memory may live


@pytest.fixture
def stage() -> Iterator[Stage]:
    made = Stage()
    yield made
    made.close()


def test_what_was_published_is_known_to_have_been_sent(stage: Stage) -> None:
    stage.table.begin_running(LANE_NUMBER, 0, 1)
    stage.send(stage.producer, cause=0, ordinal=0)
    work = stage.unfinished()
    assert (work.attempt, sent(work)) == (2, {WAY: 1})


def sent(work: Work) -> dict[int, int]:
    """What a successor knows to have been published."""
    assert work.published is not None
    return work.published.by_edge


class DiesBeforePublishing(InterruptedError):
    pass


def test_what_was_written_and_not_published_was_not_sent(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """It lies where the oldest record lay."""
    stage.table.begin_running(LANE_NUMBER, 0, 1)

    def dies() -> None:
        raise DiesBeforePublishing

    monkeypatch.setattr(stage.producer, "publish", dies)
    with pytest.raises(DiesBeforePublishing):
        stage.send(stage.producer, cause=0, ordinal=0)
    work = stage.unfinished()
    assert (work.attempt, sent(work)) == (2, {})


def test_half_of_a_record_hides_no_other(stage: Stage) -> None:
    stage.table.begin_running(LANE_NUMBER, 0, 1)
    stage.send(stage.producer, cause=0, ordinal=0)
    stage.producer.segment.bytes[stage.producer.slot()] = 0  # of no kind
    assert sent(stage.unfinished()) == {WAY: 1}


@pytest.mark.parametrize("stores", range(6))
def test_a_death_while_an_attempt_is_noted_forgets_no_earlier_one(stage: Stage, stores: int) -> None:
    """Else what was sent in the first attempt would be sent again in the third."""
    stage.table.begin_running(LANE_NUMBER, 0, 1)
    stage.send(stage.producer, cause=0, ordinal=0)
    successor = Inflight(stage.table.segment)
    words, left = successor._words, stores

    class Dies:
        def __getitem__(self, index: int) -> int:
            return words[index]

        def __setitem__(self, index: int, value: int) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                raise InterruptedError
            words[index] = value

    successor._words = Dies()  # type: ignore[assignment]
    with contextlib.suppress(InterruptedError):
        successor.begin_running(LANE_NUMBER, 0, 2)
    work = stage.unfinished()
    assert work.row == RUNNING_ROW
    assert (work.attempt, sent(work)) in [(2, {WAY: 1}), (3, {WAY: 1})]


def test_a_lane_that_comes_while_a_successor_asks_for_a_slab_is_no_obstacle() -> None:
    """It asks for the slab of a block that its predecessor forwarded; a client connects meanwhile."""
    owner, forwarder, reader = 1, 2, 3
    exchange = Exchange(owner, forwarder, reader)
    into, out, late = exchange.connect(owner, forwarder), exchange.connect(forwarder, reader), 3
    exchange.add_slab(owner, size_class(np.arange(300).nbytes), 4)
    first, predecessor = exchange.endpoint(owner), exchange.endpoint(forwarder)
    for each in (first, predecessor):
        each.recover()
    Payload(np.arange(300), first.pool).publish(first.producers[into], Kind.DATA, 0, (0,) * 13)
    consumer = predecessor.consumers[into]
    header = read_header(consumer.segment.bytes, consumer.offset())
    received = predecessor.open(consumer, header, 0)
    Payload(received, predecessor.pool).publish(predecessor.producers[out], Kind.DATA, 0, (0,) * 13)
    successor = exchange.endpoint(forwarder)
    ask = successor.ask

    def ask_while_a_client_comes(question: Ask) -> None:
        if late not in exchange.lanes:
            exchange.connect(reader, forwarder)
            exchange.offer(successor, exchange.lane_offer(late, "consumer"))
        ask(question)

    successor.ask = ask_while_a_client_comes
    successor.recover()
    assert late in successor.consumers
    assert successor.forwards
    for each in (first, predecessor, successor):
        each.close()
    exchange.close()


def test_what_was_handed_on_is_found_among_the_calls(stage: Stage) -> None:
    stage.table.begin_running(LANE_NUMBER, 0, 1)
    stage.send(stage.producer, cause=0, ordinal=1, flags=Flag.DELEGATED, reply_to=7)
    work = stage.unfinished(DELEGATE_KEY)
    assert sent(work) == {DELEGATE_KEY: 2}
    assert work.published is not None
    assert work.published.delegated is not None
    assert work.published.delegated[:2] == (ROUTE, 1)


def test_a_call_that_a_handler_made_is_no_output_and_a_report_is(stage: Stage) -> None:
    stage.table.begin_running(LANE_NUMBER, 0, 1)
    stage.send(stage.producer, cause=0, ordinal=0, reply_to=7)
    stage.send(stage.producer, cause=0, ordinal=1, reply_to=0)
    work = stage.unfinished(DELEGATE_KEY)
    assert sent(work) == {REPORT_KEY: 2}
    assert work.published is not None
    assert not work.published.was_delegated


def test_the_table_knows_what_was_handed_on_when_its_lane_has_forgotten(stage: Stage) -> None:
    stage.table.begin_running(LANE_NUMBER, 0, 1)
    stage.table.sent(RUNNING_ROW, 1, MOVED_WAY)
    work = stage.unfinished(DELEGATE_KEY)
    assert work.published is not None
    assert work.published.was_delegated
    assert (work.published.delegated, work.published.count(DELEGATE_KEY, 0)) == (None, 2)
