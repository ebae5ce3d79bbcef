"""Senders of one actor instance that wait for room: `await self.send(...)`, and tasks that have emitted much."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Coroutine, Generator, Sequence
from typing import Any, Protocol

from ...shm.bell import now_ns
from ...shm.pool import Pool
from ...shm.producer import Producer
from ..errors import EdgeFull, OutOfMemory
from ..spec import EdgeSpec
from ..telemetry.stats import CellStats
from .input_states import FINISHED
from .work import Work

# A sender that always finds room hands over to the loop this often, as the turn of a handler ends.
_YIELD_AFTER_NS = 500_000
_LAST_ORDINAL = (1 << 32) - 1


class Outgoing(Protocol):
    """The ways out, as `Outlets` has them."""

    def send(self, work: Work, port: str, value: Any) -> None: ...

    def full_lane(self, port: str) -> Producer | None: ...

    def could_go(self, work: Work) -> bool: ...

    def flush(self, work: Work) -> bool: ...


class _Turn:
    """One send that waits. `used_nbytes`: of the pool when it had no block for it, 0 where a lane was full."""

    __slots__ = ("admitted", "port", "since_ns", "used_nbytes", "waits_at", "work")

    def __init__(self, work: Work, port: str) -> None:
        self.work = work
        self.port = port
        self.used_nbytes = 0
        self.since_ns = 0
        self.waits_at: Producer | None = None
        self.admitted: asyncio.Future[None] | None = None


class Sends:
    """One thread, that of the worker's loop. Sends by one port go in the order in which they were begun.

    `turns` are the sends that wait, `paused` the tasks that wait until all messages which were emitted outside of any
    input have left.
    """

    def __init__(self, outlets: Outgoing, own_account: Work, pool: Pool, stats: CellStats) -> None:
        self._outlets = outlets
        self._own_account = own_account
        self.paused: list[asyncio.Future[None]] = []
        self._pool = pool
        self._stats = stats
        self.turns: deque[_Turn] = deque()
        self._went_on_ns = 0

    @property
    def are_held_up(self) -> bool:
        """Whether messages that were emitted outside of any input wait for room."""
        return bool(self._own_account.outbox)

    def emptied(self) -> Generator[Any, None, None]:
        """Waits until all messages that were emitted outside of any input have left."""
        loop = asyncio.get_running_loop()
        while self._own_account.outbox:
            paused = loop.create_future()
            self.paused.append(paused)
            loop.stop()  # before it sleeps the worker must see who waits for what
            try:
                yield from paused
            finally:
                self.paused.remove(paused)

    def note_begun(self) -> None:
        """Counts a message or a call that the actor makes outside of any input."""
        self._stats.count("begun")

    def check(self, work: Work, edges: Sequence[EdgeSpec]) -> None:
        """Messages that are emitted outside of any input belong to a source that may never end: so their ordinals begin
        anew when they are used up, and only as many as the edges hold may wait. Raises EdgeFull.
        """
        work.ordinal &= _LAST_ORDINAL
        if work.outbox and len(work.outbox) >= sum(edge.capacity for edge in edges):
            source = edges[0].source if edges else "an output without an edge"
            raise EdgeFull(
                f"{source}: {len(work.outbox)} messages emitted outside of any input wait for room already, as many as "
                "its edges hold; `await self.send(...)` in the place of self.emit waits until there is room"
            )
        self.note_begun()

    async def send(self, work: Work, port: str, value: Any) -> None:
        """Sends as soon as the message finds room in every lane that it must not miss, and a block. Raises as `send` of
        the outlets; cancelled while it waits, it has sent nothing.
        """
        turn = _Turn(work, port)
        if any(each.port == port for each in self.turns) or not self._goes(turn, value):
            await self._wait(turn, value)
        elif (now := now_ns()) - self._went_on_ns > _YIELD_AFTER_NS:
            await asyncio.sleep(0)
            self._went_on_ns = now

    async def _wait(self, turn: _Turn, value: Any) -> None:
        loop = asyncio.get_running_loop()
        self.turns.append(turn)
        try:
            while True:
                turn.admitted = loop.create_future()
                loop.stop()  # before it sleeps the worker must see who waits for what
                await turn.admitted
                if self._goes(turn, value):
                    return
        finally:
            self.turns.remove(turn)
            self._show_end(turn)

    def _goes(self, turn: _Turn, value: Any) -> bool:
        turn.used_nbytes = 0
        if turn.work.state is FINISHED:  # it is a task that has outlived its handler meanwhile
            turn.work = self._own_account
        lane = self._outlets.full_lane(turn.port)
        if lane is not None or turn.work.outbox:
            self._show_begin(turn, lane)
            return False
        try:
            self._outlets.send(turn.work, turn.port, value)
        except OutOfMemory:
            if not self._pool.used_nbytes:
                raise  # nothing will come back
            turn.used_nbytes = self._pool.used_nbytes
            return False
        return True

    @staticmethod
    def _show_begin(turn: _Turn, lane: Producer | None) -> None:
        if lane is not None and turn.waits_at is None:
            turn.waits_at, turn.since_ns = lane, now_ns()
            lane.block(turn.since_ns)

    @staticmethod
    def _show_end(turn: _Turn) -> None:
        if turn.waits_at is not None:
            turn.waits_at.count("blocked")
            turn.waits_at.unblock(turn.since_ns, now_ns())

    def can_go(self) -> bool:
        """Whether `admit` would let any of them go now."""
        if self.paused and not self._own_account.outbox:
            return True
        return any(self._outlets.could_go(turn.work) if turn.work.outbox else self._may_go(turn) for turn in self.turns)

    def admit(self) -> None:
        """Lets those senders go on for which there is room."""
        for paused in self.paused if not self._own_account.outbox else ():
            if not paused.done():
                paused.set_result(None)
        for turn in self.turns:
            if turn.work.outbox:
                self._outlets.flush(turn.work)
            if self._may_go(turn) and turn.admitted is not None:
                turn.admitted.set_result(None)

    def _may_go(self, turn: _Turn) -> bool:
        if turn.admitted is None or turn.admitted.done() or turn.work.outbox:
            return False
        if turn.used_nbytes:
            self._pool.take_back()
            return self._pool.used_nbytes < turn.used_nbytes
        return self._outlets.full_lane(turn.port) is None


async def paced(coroutine: Coroutine[Any, Any, Any], sends: Sends) -> Any:
    """Does what the coroutine does; behind each of its awaits it waits until the outbox is empty."""
    return await _Paced(coroutine, sends)


class _Paced:
    """Pauses while what the task has emitted finds no room, as a generator pauses at its `yield`."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any], sends: Sends) -> None:
        self._coroutine = coroutine
        self._sends = sends

    def __await__(self) -> Generator[Any, Any, Any]:
        step, argument = self._coroutine.send, None
        while True:
            try:
                awaited = step(argument)
            except StopIteration as end:
                return end.value
            try:
                argument = yield awaited
                if self._sends.are_held_up:
                    yield from self._sends.emptied()
                step = self._coroutine.send
            except BaseException as error:  # the task is cancelled, or thrown away
                step, argument = self._coroutine.throw, error
