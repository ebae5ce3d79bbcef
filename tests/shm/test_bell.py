"""Park and wake: nobody sleeps through news, and nobody is rung who is awake."""

from __future__ import annotations

import os
import random
import select
from collections.abc import Iterator

import pytest

from edge import Edge, peek, send_number
from slabwire.shm import fence
from slabwire.shm.bell import BLOCKS, RECORDS, ROOM, UNFENCED_PARK_S, Bell, Ringer
from slabwire.shm.consumer import Consumer
from slabwire.shm.producer import Producer

# Far above any wake-up: who sleeps this long has missed one.
LOST_S = 10.0


@pytest.fixture
def edge() -> Iterator[Edge]:
    edge = Edge()
    yield edge
    edge.close()


def _is_ringing(bell: Bell) -> bool:
    return bool(select.select([bell.fd], [], [], 0)[0])


@pytest.mark.parametrize("reasons", [RECORDS, ROOM, BLOCKS, RECORDS | ROOM, RECORDS | BLOCKS])
@pytest.mark.parametrize("news", [RECORDS, ROOM, BLOCKS])
def test_a_parked_owner_is_rung_for_what_it_waits_for(edge: Edge, reasons: int, news: int) -> None:
    bell = edge.bell(1)
    bell.park(reasons)
    edge.ringer(1).ring(news)
    assert _is_ringing(bell) == bool(reasons & news)
    bell.unpark()
    assert not _is_ringing(bell)
    assert (bell.parks, bell.wakes) == (1, int(bool(reasons & news)))


def test_nobody_is_rung_who_is_awake(edge: Edge) -> None:
    bell = edge.bell(1)
    edge.ringer(1).ring(RECORDS)
    bell.park(RECORDS)
    bell.unpark()
    edge.ringer(1).ring(RECORDS)
    assert not _is_ringing(bell)
    edge.ringer(1).ring_always()
    assert _is_ringing(bell)


def test_each_sleep_is_rung_for_once(edge: Edge) -> None:
    bell, ringer = edge.bell(1), edge.ringer(1)
    for _ in range(2):
        bell.park(RECORDS)
        ringer.ring(RECORDS)
        ringer.ring(RECORDS)
        assert os.eventfd_read(bell.fd) == 1
        bell.unpark()


def test_a_successor_that_sleeps_is_rung_for_though_its_predecessor_was(edge: Edge) -> None:
    ringer = edge.ringer(1)
    for _ in range(2):
        bell = edge.bell(1)
        bell.park(RECORDS)
        ringer.ring(RECORDS)
        assert _is_ringing(bell)
        os.eventfd_read(bell.fd)


def test_a_successor_of_one_that_died_parked_is_awake(edge: Edge) -> None:
    bell = edge.bell(1)
    bell.park(RECORDS)
    successor = edge.bell(1)
    edge.ringer(1).ring(RECORDS)
    assert not _is_ringing(successor)
    successor.close()


def test_ringing_too_often_or_after_the_end_is_harmless(edge: Edge) -> None:
    bell = edge.bell(1)
    fd = os.dup(bell.fd)
    os.eventfd_write(fd, (1 << 64) - 2)
    ringer = Ringer(bell.segment, fd)
    ringer.ring_always()
    ringer.close()
    ringer.close()
    ringer.ring_always()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


def test_the_descriptor_stays_open_while_a_thread_is_about_to_ring(edge: Edge) -> None:
    """Else another file could get its number, and the ring would be written into that."""
    bell = edge.bell(1)
    ringer = Ringer(bell.segment, os.dup(bell.fd))
    ringing = ringer._doorbell  # what a thread has in hand that was stopped right before the write
    assert ringing is not None
    ringer.close()
    ringing.write(ringing.fd, 1)
    assert _is_ringing(bell)
    fd = ringing.fd
    del ringing
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


def test_the_announcement_is_stored_before_the_fence(edge: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    bell = edge.bell(1)
    at = edge.bells[1].placed.word("waiting_for")
    seen: list[int] = []

    def full_barrier() -> bool:
        seen.append(edge.bells[1].words[at])
        return True

    monkeypatch.setattr(fence, "full_barrier", full_barrier)
    assert bell.park(RECORDS | ROOM) is None
    assert [word & (RECORDS | ROOM | BLOCKS) for word in seen] == [RECORDS | ROOM]


def test_without_a_fence_the_park_is_bounded(edge: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    bell = edge.bell(1)
    monkeypatch.setattr(fence, "full_barrier", lambda: False)
    assert bell.park(RECORDS) == UNFENCED_PARK_S


def test_who_rings_takes_part_in_barriers(edge: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[bool] = []
    monkeypatch.setattr(fence, "register", lambda: calls.append(True))
    edge.ringer(1)
    assert calls


def test_registering_and_the_fence_go_through(edge: Edge) -> None:
    if not fence.register():
        pytest.skip("this kernel has no membarrier")
    assert fence.full_barrier()


class Player:
    """One side of a ping-pong that parks before every record, after having looked `looks` times."""

    def __init__(self, bell: Bell, out: Producer, inlet: Consumer) -> None:
        self.bell, self.out, self.inlet = bell, out, inlet
        self.poll = select.poll()
        self.poll.register(bell.fd, select.POLLIN)

    def next(self, looks: int) -> int:
        for _ in range(looks):
            if self.inlet.available():
                break
        while not self.inlet.available():
            longest = self.bell.park(RECORDS)
            if not self.inlet.available() and not self.poll.poll((longest or LOST_S) * 1000) and longest is None:
                raise TimeoutError(f"a wake-up was lost at record {self.inlet.tail}")
            self.bell.unpark()
        value = peek(self.inlet).value
        self.inlet.commit()
        return value


def _play(player: Player, rounds: int, *, begins: bool) -> None:
    dice = random.Random(rounds + begins)
    for number in range(rounds):
        if begins:
            send_number(player.out, number)
        if player.next(dice.randrange(40)) != number:
            raise ValueError(f"record {number} came at a wrong time")
        if not begins:
            send_number(player.out, number)


def _litmus(rounds: int) -> int:
    """Two processes, each parking all the time; how often this one parked."""
    there, back = Edge(), Edge()
    pid = os.fork()
    if pid == 0:
        try:
            _play(Player(there.bell(1), back.producer(), there.consumer()), rounds, begins=False)
        except BaseException:
            os._exit(1)
        os._exit(0)
    bell = back.bell(1)
    _play(Player(bell, there.producer(), back.consumer()), rounds, begins=True)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    bell.close()
    there.close()
    back.close()
    return bell.parks


def test_no_wake_up_is_lost_between_two_processes() -> None:
    assert _litmus(20_000) > 100


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_no_wake_up_is_lost_in_ten_million_rounds() -> None:
    assert _litmus(10_000_000) > 100_000
