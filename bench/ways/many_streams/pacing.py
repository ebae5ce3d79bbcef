"""What all sources do alike: an item for every open stream a step, as a model does that decodes all of them at once, or
as several do that have a part of the streams each.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from time import monotonic, monotonic_ns
from typing import Any, NamedTuple

from .item import stamp_of

_LOOK_EVERY_S = 0.0005
_WAIT_S = 60.0
# Of the streams of a batch. An engine decodes some hundreds of sequences a step; whoever serves more runs several of
# them, and these begin their steps at different moments.
MOST_IN_BATCH = 1000


def batches_of(streams: int) -> int:
    """How many batches so many streams are in."""
    return -(-streams // MOST_IN_BATCH)


class Queued(NamedTuple):
    """A stream whose items a task takes from a queue."""

    queue: asyncio.Queue[str]
    mark: str


class Pacing:
    """The part of each source that is the same: what the bench asks it for."""

    pace: float

    def __init__(self) -> None:
        super().__init__()
        self.missed = Counter[int]()  # of streams that had no room, by number

    async def steps(self, count: int, pace: float | None = None) -> dict[str, Any]:
        """Makes so many steps, `pace` a second: when the first began, when the next one would, and how many items which
        streams have missed. One that is late follows at once.
        """
        pace = pace or self.pace
        self.missed.clear()
        loop = asyncio.get_running_loop()
        began, began_ns = loop.time(), monotonic_ns()
        for number in range(count):
            await asyncio.sleep(began + number / pace - loop.time())
            self._step(stamp_of(monotonic_ns()))
        ended_ns = began_ns + int(count / pace * 1e9)
        return {"began_ns": began_ns, "ended_ns": ended_ns, "missed": list(self.missed.items())}

    async def wait_open(self, count: int) -> int:
        """When so many streams were open, on the clock of `monotonic_ns`. Raises TimeoutError."""
        until = monotonic() + _WAIT_S
        while self._open_streams() != count:
            if monotonic() > until:
                raise TimeoutError(f"{self._open_streams()} streams are open after {_WAIT_S:g} s, not {count}")
            await asyncio.sleep(_LOOK_EVERY_S)
        return monotonic_ns()

    def _step(self, stamp: str) -> None:
        """An item for each open stream."""
        raise NotImplementedError

    def _open_streams(self) -> int:
        raise NotImplementedError


class BatchedPacing(Pacing):
    """A source whose streams are in batches, by their numbers modulo `batches`. Each batch has its step at a moment of
    its own; these are evenly spread over the time of a step.
    """

    def __init__(self, batches: int) -> None:
        super().__init__()
        self._batches, self._next = batches, 0

    async def steps(self, count: int, pace: float | None = None) -> dict[str, Any]:
        """Makes so many steps for each batch, `pace` a second, and gives what `Pacing.steps` does. The first batch has
        its first step at once, and all have had their last one before the first batch would have the next.
        """
        self._next = 0
        return await super().steps(count * self._batches, (pace or self.pace) * self._batches)

    def _step(self, stamp: str) -> None:
        """The batches take turns."""
        self._step_batch(self._next, stamp)
        self._next = (self._next + 1) % self._batches

    def _step_batch(self, batch: int, stamp: str) -> None:
        """An item for each open stream of this batch."""
        raise NotImplementedError


class QueuedPacing(Pacing):
    """A source whose streams each have a queue."""

    def __init__(self) -> None:
        super().__init__()
        self.queued: dict[int, Queued] = {}

    def _step(self, stamp: str) -> None:
        for queue, mark in self.queued.values():
            queue.put_nowait(stamp + mark)

    def _open_streams(self) -> int:
        return len(self.queued)
