"""Turns the engine on an asyncio loop, for as long as it has work, and tells what each step has made."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
from collections.abc import Awaitable, Callable

from ...runtime.errors import Draining
from .engine.engine import Engine
from .engine.sequence import Output, Sequence

logger = logging.getLogger("slabwire")


class Driver:
    """One thread, on the loop that runs when it is made. `made` gets all outputs of a step at once. `ended` sees each
    sequence that came to its end while its slot still holds it.
    """

    def __init__(self, engine: Engine, made: Callable[[list[Output]], None], ended: Callable[[Sequence], None]) -> None:
        self._engine = engine
        self._made = made
        self._ended = ended
        self._loop = asyncio.get_running_loop()
        self._seated: dict[Sequence, asyncio.Event] = {}  # of each sequence in the making: whether it has its slot
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    async def admit(self, sequence: Sequence, load: Callable[[Sequence], Awaitable[None]] | None = None) -> None:
        """Queues a sequence. Once it has its slot `load` may put something into it; then this returns.

        Raises Draining, and what `load` raises. Whoever cancels a sequence also cancels the task that awaits this.
        """
        if self._closed:
            raise Draining("the model is being stopped")
        seated = self._seated[sequence] = asyncio.Event()
        sequence.held = load is not None
        self._engine.admit(sequence)
        self._go_on()
        if load is not None:
            await seated.wait()
            await load(sequence)
            sequence.held = False
            self._go_on()

    def cancel(self, sequence: Sequence) -> None:
        """Drops a sequence, and gives its slot to the next. One that has ended, or was never admitted, is fine."""
        if self._seated.pop(sequence, None) is not None:
            self._engine.cancel(sequence)
            self._go_on()

    def _go_on(self) -> None:
        """Gives free slots to those that wait, and sees to it that the engine turns."""
        for sequence in self._engine.seat():
            self._seated[sequence].set()
        if self._engine.has_work and (self._task is None or self._task.done()):
            # Its own context: it works for all requests, and not for the one that happened to wake it.
            self._task = self._loop.create_task(self._run(), context=contextvars.Context())

    async def _run(self) -> None:
        """A step blocks the loop; between two of them everybody else has a turn, and may cancel or come."""
        while self._engine.has_work:
            try:
                outputs = self._engine.step()
            except Exception as error:
                logger.error("a step of the model failed; the answers in the making end with it", exc_info=error)
                # After a failed call for all of them, nobody can tell how far each one is.
                self._end([each for each in self._seated if not each.held], error)
            else:
                self._tell(outputs)
            self._go_on()
            await asyncio.sleep(0)

    def _tell(self, outputs: list[Output]) -> None:
        for output in outputs:
            if output.is_last:
                self._seated.pop(output.sequence, None)
            if output.finish_reason is not None:
                try:
                    self._ended(output.sequence)
                except Exception as error:
                    logger.error("an answer was made, but not what should follow it", exc_info=error)
        if outputs:
            self._made(outputs)

    def _end(self, sequences: list[Sequence], error: Exception) -> None:
        for each in sequences:
            self._engine.cancel(each)
        self._tell([Output(each, "", 0, error=error) for each in sequences])

    async def close(self) -> None:
        """Ends what is in the making: from then on nothing reads or writes the slots."""
        self._closed = True
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        self._end(list(self._seated), Draining("the model is being stopped"))
