"""Times that one timer serves, and turns of the loop."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest

from slabwire.actors.ingress.certificates.development import development_certificate
from slabwire.actors.ingress.tls import shared
from slabwire.actors.ingress.tls.deadlines import Deadlines
from slabwire.actors.ingress.tls.turns import Turns
from tls_stage import Notes, opened, run, terminator_of


class Waits:
    def __init__(self, deadlines: Deadlines, log: list[Waits]) -> None:
        self.log = log
        self.deadlines = deadlines
        self.also: list[Waits] = []
        deadlines.add(self)

    def overdue(self) -> None:
        self.log.append(self)
        for each in self.also:
            self.deadlines.discard(each)


def test_times_run_out_in_order_and_only_for_those_that_still_wait() -> None:
    async def scene() -> None:
        log: list[Waits] = []
        deadlines = Deadlines(asyncio.get_running_loop(), 0.2)
        first, second, third = (Waits(deadlines, log) for _ in range(3))
        await asyncio.sleep(0.01)
        later = Waits(deadlines, log)
        deadlines.discard(second)
        deadlines.add(first)  # begins again
        while len(log) < 3:
            await asyncio.sleep(0.001)
        assert log == [third, later, first]

    run(scene)


def test_who_is_overdue_may_take_out_others_and_put_in_new_ones() -> None:
    async def scene() -> None:
        log: list[Waits] = []
        deadlines = Deadlines(asyncio.get_running_loop(), 0.01)
        first, second = Waits(deadlines, log), Waits(deadlines, log)
        first.also.append(second)
        await asyncio.sleep(0.03)
        assert log == [first]
        third = Waits(deadlines, log)
        await asyncio.sleep(0.03)
        assert log == [first, third]

    run(scene)


def test_no_timer_is_left_where_nobody_waits() -> None:
    async def scene() -> None:
        loop = asyncio.get_running_loop()
        deadlines = Deadlines(loop, 3600)
        deadlines.discard(Waits(deadlines, []))
        assert all(each.cancelled() for each in loop._scheduled)  # type: ignore[attr-defined]

    run(scene)


def test_a_turn_has_so_many_and_the_next_one_again() -> None:
    async def scene() -> None:
        turns = Turns(asyncio.get_running_loop(), 2)
        for _ in range(3):
            assert [turns.take() for _ in range(4)] == [True, True, False, False]
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert turns.take()

    run(scene)


def test_who_waits_for_a_turn_has_it_in_the_order_of_asking_and_before_others() -> None:
    async def scene() -> None:
        turns, done = Turns(asyncio.get_running_loop(), 2), list[int]()
        assert [turns.take() for _ in range(3)] == [True, True, False]
        for number in range(3):
            turns.wait(lambda number=number: done.append(number))  # type: ignore[misc]
        await asyncio.sleep(0)
        assert done == [0, 1]
        assert not turns.take()
        await asyncio.sleep(0)
        assert done == [0, 1, 2]
        assert [turns.take() for _ in range(2)] == [True, False]

    run(scene)


@pytest.mark.parametrize("is_cancelled", [False, True])
def test_of_a_flood_nobody_is_looked_at_in_each_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_cancelled: bool
) -> None:
    """Else the time that a flood takes would grow with its square."""
    asked, take = list[bool](), Turns.take

    def counted(self: Turns) -> bool:
        asked.append(take(self))
        return asked[-1]

    monkeypatch.setattr(shared, "HANDSHAKE_STEPS_A_TURN", 1)
    monkeypatch.setattr(Turns, "take", counted)

    async def scene() -> None:
        certificate = development_certificate("localhost", tmp_path / "tls")
        async with opened(terminator_of("libssl", certificate), Notes) as door:
            securing = [asyncio.create_task(door.secure_next()) for _ in range(50)]
            plains = [socket.create_connection(door.address) for _ in range(50)]
            for plain in plains:
                plain.sendall(b"\x16\x03\x01\x00\x05")  # a record begins
            while len(asked) < len(plains):
                await asyncio.sleep(0)
            if is_cancelled:
                for each in securing:
                    each.cancel()
            else:
                for plain in plains:
                    plain.close()
            ended = await asyncio.gather(*securing, return_exceptions=True)
            assert all(isinstance(each, (OSError, asyncio.CancelledError)) for each in ended)
            for _ in range(60):
                await asyncio.sleep(0)  # those that wait still have their turns
            assert len(asked) <= 3 * len(plains)
            for plain in plains:
                plain.close()

    run(scene)
