"""Turns the engine on an asyncio loop, for as long as it has work, and hands each output to whoever waits for it."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable

from ...runtime.errors import Draining
from .engine.engine import Engine
from .engine.sequence import Output, Sequence

logger = logging.getLogger("slabwire")


class Driver:
    """One loop, one thread. `ended` sees each sequence that came to its end while its slot still holds it."""

    def __init__(self, engine: Engine, ended: Callable[[Sequence], None]) -> None:
        self._engine = engine
        self._ended = ended
        self._outputs: dict[Sequence, asyncio.Queue[Output | Exception]] = {}
        self._seated: dict[Sequence, asyncio.Event] = {}
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    async def outputs(
        self, sequence: Sequence, load: Callable[[Sequence], Awaitable[None]] | None = None
    ) -> AsyncGenerator[Output, None]:
        """What comes of a sequence; leaving cancels it. Once it has its slot `load` may put something into it."""
        if self._closed:
            raise Draining("the model is being stopped")
        arrived = self._outputs[sequence] = asyncio.Queue()
        sequence.held = load is not None
        self._engine.admit(sequence)
        try:
            if load is not None:
                seated = self._seated[sequence] = asyncio.Event()
                self._tell_seated()
                await seated.wait()
                await load(sequence)
                sequence.held = False
            self._wake()
            while True:
                output = await arrived.get()
                if isinstance(output, Exception):
                    raise output
                yield output
                if output.is_last:
                    return
        finally:
            self._outputs.pop(sequence, None)
            self._seated.pop(sequence, None)
            self._engine.cancel(sequence)
            self._tell_seated()

    def _tell_seated(self) -> None:
        for sequence in self._engine.seat():
            if sequence in self._seated:
                self._seated[sequence].set()

    def _wake(self) -> None:
        if self._task is None or self._task.done():
            # Its own context: it works for all requests, and not for the one that happened to wake it.
            self._task = asyncio.get_running_loop().create_task(self._run(), context=contextvars.Context())

    async def _run(self) -> None:
        """A step blocks the loop; between two of them everybody else has a turn, and may cancel or come."""
        while self._engine.has_work:
            try:
                outputs = self._engine.step()
            except Exception as error:
                logger.error("a step of the model failed; the answers in the making end with it", exc_info=error)
                self._fail(error)
            else:
                for output in outputs:
                    self._deliver(output)
            self._tell_seated()
            await asyncio.sleep(0)

    def _deliver(self, output: Output) -> None:
        sequence = output.sequence
        if sequence in self._outputs:
            self._outputs[sequence].put_nowait(output.error or output)
        if output.finish_reason is not None:
            try:
                self._ended(sequence)
            except Exception as error:
                logger.error("an answer was made, but not what should follow it", exc_info=error)

    def _fail(self, error: Exception) -> None:
        """Ends all sequences: after a failed call for all of them, nobody can tell how far each one is."""
        for sequence, arrived in self._outputs.items():
            if not sequence.held:
                self._engine.cancel(sequence)
                arrived.put_nowait(error)

    async def close(self) -> None:
        """Ends what is in the making: from then on nothing reads or writes the slots."""
        self._closed = True
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        for sequence, arrived in self._outputs.items():
            self._engine.cancel(sequence)
            arrived.put_nowait(Draining("the model is being stopped"))
