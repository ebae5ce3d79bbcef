"""Requests with an idempotency key at a gateway: each is carried through once, whoever goes or comes meanwhile."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from ...shm.bell import now_ns
from ..errors import Overloaded, mark_not_begun
from ..remote.protocol import Frame
from .answer_cache import Remembered, check_same
from .budget import Budget

# Of all clients together, those that went included.
MOST_RUNNING = 256
# How long work goes on whose client went: it may have lost its connection alone, and come back to ask.
ORPHANED_FOR_S = 60.0

# The client, the port, the key.
Name = tuple[str, str, str]


class _Running:
    """One request on its way, and how many wait for it."""

    def __init__(self, fingerprint: bytes, task: asyncio.Task[list[bytes]]) -> None:
        self.fingerprint = fingerprint
        self.task = task
        self._waiting = 0
        self._end: asyncio.TimerHandle | None = None

    async def answer(self) -> list[bytes]:
        self._waiting += 1
        if self._end is not None:
            self._end.cancel()
            self._end = None
        try:
            return await asyncio.shield(self.task)
        finally:
            self._waiting -= 1
            if not self._waiting and not self.task.done():
                self._end = asyncio.get_running_loop().call_later(ORPHANED_FOR_S, self.task.cancel)

    @property
    def is_given_up(self) -> bool:
        """Whether it was cancelled, and may still be at its end."""
        return bool(self.task.cancelling())

    @property
    def is_orphaned(self) -> bool:
        return self._end is not None and not self.is_given_up

    async def end(self) -> None:
        """Cancels it, and waits until it has ended."""
        if self._end is not None:
            self._end.cancel()
        self.task.cancel()
        await asyncio.wait([self.task])


class IdempotentCalls:
    """Of one gateway, on its loop. Answers are remembered for a while; errors are not: the next attempt tries anew."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._running: dict[Name, _Running] = {}
        self._remembered = Remembered()

    async def answer(
        self, name: Name, payload: Sequence[Frame], ask: Callable[[], Coroutine[Any, Any, list[Frame]]]
    ) -> list[bytes]:
        """The frames of the answer: remembered, awaited together with an earlier attempt, or what `ask` gives.

        Raises MessageError for a key that was given to another payload, Overloaded, and what the work ended with.
        """
        fingerprint = _fingerprint(payload)
        nbytes = sum(map(len, payload))
        if name not in self._running and self._remembered.find(name, fingerprint, now_ns()) is None:
            await self._make_room(nbytes)
        while (running := self._running.get(name)) is not None and running.is_given_up:
            await asyncio.wait([running.task])
        known = self._remembered.find(name, fingerprint, now_ns())
        if known is not None:
            return known
        if running is None:
            if len(self._running) >= MOST_RUNNING:
                raise mark_not_begun(
                    Overloaded(f"{MOST_RUNNING} calls with keys are at work here already; try again later")
                )
            self._budget.take(nbytes)  # of its own: the client may go, and what it took with it
            task = asyncio.get_running_loop().create_task(self._carry(name, fingerprint, ask))
            running = self._running[name] = _Running(fingerprint, task)
            task.add_done_callback(lambda ended: self._ended(name, ended, nbytes))
        check_same(running.fingerprint, fingerprint)
        return await running.answer()

    async def _make_room(self, nbytes: int) -> None:
        """Gives up work whose client went, the oldest first, where it stands in the way of work that is waited for."""
        while len(self._running) >= MOST_RUNNING or not self._budget.has_room(nbytes):
            orphan = next((each for each in self._running.values() if each.is_orphaned), None)
            if orphan is None:
                return
            await orphan.end()

    async def _carry(
        self, name: Name, fingerprint: bytes, ask: Callable[[], Coroutine[Any, Any, list[Frame]]]
    ) -> list[bytes]:
        return self._remembered.keep(name, fingerprint, await ask(), now_ns())

    def _ended(self, name: Name, task: asyncio.Task[list[bytes]], nbytes: int) -> None:
        del self._running[name]
        self._budget.give_back(nbytes)
        if not task.cancelled():
            task.exception()  # asyncio would log the error of a task for which nobody waited

    async def close(self) -> None:
        """Cancels what is at work."""
        for each in list(self._running.values()):
            await each.end()


def _fingerprint(payload: Sequence[Frame]) -> bytes:
    """Tells requests apart; each frame's length goes in, too."""
    digest = hashlib.blake2b(digest_size=16)
    for frame in payload:
        digest.update(len(frame).to_bytes(8, "little"))
        digest.update(frame)
    return digest.digest()
