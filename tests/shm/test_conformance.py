"""What two parties may rely on: the same table of behaviours within one process and between processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from operator import itemgetter
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from exchange import Exchange
from party import KINDS, Driven
from slabwire.shm.block import METADATA_NBYTES, SMALLEST_BLOCK_NBYTES, size_class

SENDER, READER, OTHER, THIRD = 1, 2, 3, 4
CAPACITY, LEASES, BLOCKS = 4, 6, 8
# Whole numbers of 8 bytes that fill a block of this many.
LENGTH = 500
NBYTES = LENGTH * 8
# What is copied in, what is loaned, and what is small.
CLASSES = {size_class(NBYTES): BLOCKS, size_class(NBYTES + METADATA_NBYTES): BLOCKS, SMALLEST_BLOCK_NBYTES: 2}
TOTAL = sum(CLASSES.values())


class Stage:
    """A sender with lanes to a reader and to another, both of which have a lane to a third party."""

    def __init__(self, kind: type[Driven]) -> None:
        self.exchange = Exchange(SENDER, READER, OTHER, THIRD)
        self._kind: Any = kind
        connect = self.exchange.connect
        self.lane = connect(SENDER, READER, CAPACITY, LEASES)
        self.aside = connect(SENDER, OTHER, CAPACITY, LEASES)
        self.onward = connect(READER, THIRD, CAPACITY, LEASES)
        for block_nbytes, blocks in CLASSES.items():
            self.exchange.add_slab(SENDER, block_nbytes, blocks)
        self._parties: list[Driven] = []

    def party(self, identifier: int) -> Any:
        party = self._kind(self.exchange, identifier)
        self._parties.append(party)
        return party

    def close(self) -> None:
        for each in self._parties:
            each.close()
        self.exchange.close()
        vars(self).clear()


@pytest.fixture(params=KINDS)
def stage(request: pytest.FixtureRequest) -> Iterator[Stage]:
    made = Stage(KINDS[request.param])
    yield made
    made.close()


@pytest.fixture
def sender(stage: Stage) -> Any:
    return stage.party(SENDER)


@pytest.fixture
def reader(stage: Stage) -> Any:
    return stage.party(READER)


def block(fill: int) -> Any:
    return np.full(LENGTH, fill)


# -- records ---------------------------------------------------------------------------------------------------------


def test_records_arrive_in_order(stage: Stage, sender: Any, reader: Any) -> None:
    for number in range(50):
        assert sender.do("send", [stage.lane], number) == [True]
        assert reader.do("receive", stage.lane) == number
    assert reader.do("available", stage.lane) == 0


def test_a_full_lane_takes_no_more_until_a_record_is_given_back(stage: Stage, sender: Any, reader: Any) -> None:
    assert [sender.do("send", [stage.lane], number) for number in range(CAPACITY + 1)] == [[True]] * CAPACITY + [
        [False]
    ]
    assert reader.do("look", stage.lane) == 0
    assert sender.do("send", [stage.lane], 9) == [False]
    assert [reader.do("receive", stage.lane) for _ in range(2)] == [0, 1]
    assert [sender.do("send", [stage.lane], number) for number in range(3)] == [[True], [True], [False]]
    assert sender.do("stats", stage.lane, "producer")["waiting"] == CAPACITY
    expected = {"taken": 2, "waiting": CAPACITY, "capacity": CAPACITY, "high_water": CAPACITY, "refused": 0}
    assert reader.do("stats", stage.lane, "consumer") == expected


def test_an_empty_lane_is_empty(stage: Stage, reader: Any) -> None:
    with pytest.raises(LookupError, match="is empty"):
        reader.do("look", stage.lane)


def test_a_record_is_seen_when_it_is_published_and_not_before(stage: Stage, sender: Any, reader: Any) -> None:
    sender.do("write", stage.lane, block(3))
    assert reader.do("available", stage.lane) == 0


# -- values ----------------------------------------------------------------------------------------------------------

NAMES = "? b B h H i I q Q e f d g F D G S5 U3 m8[ms] M8[ns] V7 >i4 >f8 >U2"
EXTENSIONS = "bfloat16 float8_e4m3fn float8_e5m2 float8_e4m3fnuz int4 uint4 float4_e2m1fn"
DTYPES = [np.dtype(each) for each in NAMES.split()]
DTYPES += [np.dtype(getattr(ml_dtypes, each)) for each in EXTENSIONS.split() if hasattr(ml_dtypes, each)]


@pytest.mark.parametrize("nbytes", [60, NBYTES], ids=["in the record", "in a block"])
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda each: each.name)
def test_every_dtype_arrives_as_it_is(
    stage: Stage, sender: Any, reader: Any, dtype: np.dtype[Any], nbytes: int
) -> None:
    length = nbytes // dtype.itemsize
    # Numbers that mean something in every dtype: text of ASCII, truth, times.
    sent = (np.arange(length * dtype.itemsize, dtype=np.uint8) % 2).view(np.dtype(f"V{dtype.itemsize}")).view(dtype)
    sender.do("send", [stage.lane], sent)
    received = reader.do("receive", stage.lane, keep="it")
    assert (received.dtype, received.shape) == (dtype, (length,))
    assert received.tobytes() == sent.tobytes()
    assert reader.do("describe", "it") == (dtype.name, (length,), False)


ARRAYS: dict[str, Callable[[], Any]] = {
    "0-d": lambda: np.array(2.5),
    "0-d of a big dtype": lambda: np.array("x" * 40),
    "empty": lambda: np.empty((0,), np.float32),
    "empty with axes": lambda: np.empty((3, 0, 2), np.int16),
    "empty and strided": lambda: np.empty((4, 0), np.int64)[::2],
    "every third": lambda: np.arange(1500)[::3],
    "backwards": lambda: np.arange(500)[::-1],
    "transposed": lambda: np.arange(500).reshape(20, 25).T,
    "Fortran's": lambda: np.asfortranarray(np.arange(500).reshape(20, 25)),
    "broadcast": lambda: np.broadcast_to(np.arange(25), (20, 25)),
    "one element wide": lambda: np.arange(500).reshape(500, 1)[:, 0],
    "read-only": lambda: np.frombuffer(bytes(range(250)) * 16, np.uint8),
    "32 axes": lambda: np.arange(500).reshape((1,) * 31 + (500,)),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_every_kind_of_array_arrives_as_it_is(stage: Stage, sender: Any, reader: Any, name: str) -> None:
    sent = ARRAYS[name]()
    assert sender.do("send", [stage.lane], {"deep": [{"er": sent}]}) == [True]
    received = reader.do("receive", stage.lane)
    (array,) = received["deep"][0].values()
    assert (array.dtype, array.shape) == (sent.dtype, sent.shape)
    assert np.array_equal(array, sent)


@pytest.mark.parametrize(("start", "step"), [(0, 1), (100, 1), (3, 7), (499, -1), (450, -9)])
def test_a_part_of_a_loan_is_sent_by_its_place_and_strides(
    stage: Stage, sender: Any, reader: Any, start: int, step: int
) -> None:
    sender.do("send_part_of_loan", [stage.lane], LENGTH, start, step)
    assert np.array_equal(reader.do("receive", stage.lane), np.arange(LENGTH)[start::step])


VALUES = [None, True, -(1 << 63), (1 << 64) - 1, 1.5, "tëxt", b"\0bytes", [1, [2, []]], {"a": {"b": None}}, "x" * 4000]


@pytest.mark.parametrize("number", range(len(VALUES)))
def test_plain_values_arrive_as_they_are(stage: Stage, sender: Any, reader: Any, number: int) -> None:
    sender.do("send", [stage.lane], VALUES[number])
    assert reader.do("receive", stage.lane) == VALUES[number]


# -- blocks ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["send", "send_loan"])
def test_a_block_is_lent_and_comes_back(stage: Stage, sender: Any, reader: Any, verb: str) -> None:
    for fill in range(3 * BLOCKS):
        assert sender.do(verb, [stage.lane], block(fill)) == [True]
        assert sender.do("out") == 1
        assert np.array_equal(reader.do("receive", stage.lane), block(fill))
        assert sender.do("out") == 0


VIEWS: dict[str, Callable[[Any], Any]] = {"itself": itemgetter(slice(None)), "a slice": itemgetter(slice(7, 300, 5))}


@pytest.mark.parametrize("way", VIEWS)
def test_what_is_kept_stays_as_it_was_while_all_else_is_written_again(
    stage: Stage, sender: Any, reader: Any, way: str
) -> None:
    sender.do("send", [stage.lane], block(5))
    reader.do("receive", stage.lane, keep="whole")
    reader.do("view", "view", "whole", VIEWS[way])
    reader.do("let_go", "whole")
    before = reader.do("contents", "view")
    for fill in range(3):
        sender.do("write_again", fill)
    assert np.array_equal(reader.do("contents", "view"), before)
    assert sender.do("out") == 1
    reader.do("let_go", "view")
    assert (sender.do("out"), sender.do("free")) == (0, TOTAL)


def test_blocks_may_come_back_in_any_order(stage: Stage, sender: Any, reader: Any) -> None:
    for number in range(LEASES):
        assert sender.do("send", [stage.lane], block(number)) == [True]
        reader.do("receive", stage.lane, keep=str(number))
    assert sender.do("send", [stage.lane], block(9)) == [False], "all rows are lent"
    for left, number in enumerate([3, 0, 5, 1, 4, 2]):
        reader.do("let_go", str(number))
        assert sender.do("out") == LEASES - left - 1
    assert sender.do("send", [stage.lane], block(9)) == [True]
    assert np.array_equal(reader.do("receive", stage.lane), block(9))


def test_a_loan_that_its_owner_still_sees_is_not_given_out_again(stage: Stage, sender: Any) -> None:
    sender.do("take_loan", "mine", NBYTES, 77)
    sender.do("write_again", 1)
    assert set(sender.do("contents", "mine").tolist()) == {77}


def test_one_block_goes_to_several_readers_and_comes_back_once(stage: Stage, sender: Any, reader: Any) -> None:
    other = stage.party(OTHER)
    assert sender.do("send_loan", [stage.lane, stage.aside], block(8)) == [True, True]
    assert sender.do("out") == 1
    for party, lane in ((reader, stage.lane), (other, stage.aside)):
        party.do("receive", lane, keep="it")
    reader.do("let_go", "it")
    assert sender.do("out") == 1
    sender.do("write_again", 1)
    assert np.array_equal(other.do("contents", "it"), block(8))
    other.do("let_go", "it")
    assert (sender.do("out"), sender.do("free")) == (0, TOTAL)


def test_a_third_party_gets_the_same_block_by_a_forwarder(stage: Stage, sender: Any, reader: Any) -> None:
    third = stage.party(THIRD)
    sender.do("send", [stage.lane], block(6))
    reader.do("receive", stage.lane, keep="it")
    assert reader.do("forward", "it", [stage.onward]) == [True]
    reader.do("let_go", "it")
    third.do("receive", stage.onward, keep="it")
    assert (reader.do("out"), sender.do("out")) == (0, 1), "nothing was copied, and the forwarder holds it"
    sender.do("write_again", 1)
    assert np.array_equal(third.do("contents", "it"), block(6))
    third.do("let_go", "it")
    assert (reader.do("out"), sender.do("out")) == (0, 0)


# -- those who come late, and successors -----------------------------------------------------------------------------


def test_a_reader_may_start_late(stage: Stage, sender: Any) -> None:
    for number in range(CAPACITY):
        sender.do("send", [stage.lane], block(number))
    late = stage.party(READER)
    assert [int(late.do("receive", stage.lane)[0]) for _ in range(CAPACITY)] == list(range(CAPACITY))
    assert sender.do("out") == 0


def test_a_successor_of_a_reader_goes_on_where_it_stopped(stage: Stage, sender: Any, reader: Any) -> None:
    for number in range(CAPACITY):
        sender.do("send", [stage.lane], block(number))
    reader.do("receive", stage.lane, keep="committed")
    reader.do("look", stage.lane, keep="begun")
    reader.die()
    successor = stage.party(READER)
    assert sender.do("out") == CAPACITY - 1, "what the dead one had kept is free"
    assert [int(successor.do("receive", stage.lane)[0]) for _ in range(CAPACITY - 1)] == [1, 2, 3]
    assert sender.do("out") == 0


def test_a_successor_of_a_sender_takes_back_what_it_lent(stage: Stage, sender: Any, reader: Any) -> None:
    for number in range(3):
        sender.do("send", [stage.lane], block(number))
    reader.do("receive", stage.lane, keep="it")
    sender.do("take_loan", "loaned", NBYTES, 1)
    sender.do("write", stage.lane, block(9))
    sender.die()
    successor = stage.party(SENDER)
    assert (successor.do("out"), successor.do("free")) == (3, TOTAL - 3)
    successor.do("write_again", 1)
    assert successor.do("send", [stage.lane], block(4)) == [True]
    assert np.array_equal(reader.do("contents", "it"), block(0))
    assert [int(reader.do("receive", stage.lane)[0]) for _ in range(3)] == [1, 2, 4]
    reader.do("let_go", "it")
    assert (successor.do("out"), successor.do("free")) == (0, TOTAL)


def test_a_successor_of_a_forwarder_holds_what_it_had_forwarded(stage: Stage, sender: Any, reader: Any) -> None:
    third = stage.party(THIRD)
    sender.do("send", [stage.lane], block(6))
    reader.do("receive", stage.lane, keep="it")
    reader.do("forward", "it", [stage.onward])
    reader.die()
    successor = stage.party(READER)
    sender.do("write_again", 1)
    assert sender.do("out") == 1
    assert np.array_equal(third.do("receive", stage.onward), block(6))
    assert (successor.do("out"), sender.do("out")) == (0, 0)


def test_everybody_may_die_and_all_comes_back(stage: Stage, sender: Any, reader: Any) -> None:
    for number in range(CAPACITY):
        sender.do("send_loan", [stage.lane, stage.aside], block(number))
    reader.do("receive", stage.lane, keep="it")
    for each in (sender, reader):
        each.die()
    again, readers = stage.party(SENDER), [(stage.party(READER), stage.lane), (stage.party(OTHER), stage.aside)]
    assert again.do("out") == CAPACITY
    for party, lane in readers:
        while party.do("available", lane):
            party.do("receive", lane)
    assert (again.do("out"), again.do("free")) == (0, TOTAL)
