"""Turns the engine on an asyncio loop, for as long as it has work, and hands each output to whoever waits for it."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import AsyncGenerator, Callable

from .engine import Engine
from .sequence import Output, Sequence

logger = logging.getLogger("slabwire")


class Driver:
    """One loop, one thread. `ended` sees each sequence that came to its end while its slot still holds it."""

    def __init__(self, engine: Engine, ended: Callable[[Sequence], None]) -> None:
        self._engine = engine
        self._ended = ended
        self._outputs: dict[Sequence, asyncio.Queue[Output | Exception]] = {}
        self._task: asyncio.Task[None] | None = None

    async def outputs(self, sequence: Sequence) -> AsyncGenerator[Output, None]:
        """What comes of a sequence; leaving cancels it."""
        arrived = self._outputs[sequence] = asyncio.Queue()
        self._engine.admit(sequence)
        if self._task is None:
            # Its own context: it works for all requests, and not for the one that happened to wake it.
            self._task = asyncio.get_running_loop().create_task(self._run(), context=contextvars.Context())
        try:
            while True:
                output = await arrived.get()
                if isinstance(output, Exception):
                    raise output
                yield output
                if output.finish_reason is not None:
                    return
        finally:
            del self._outputs[sequence]
            self._engine.cancel(sequence)

    async def _run(self) -> None:
        """A step blocks the loop; between two of them everybody else has a turn, and may cancel or come."""
        while self._engine.has_work:
            try:
                outputs = self._engine.step()
            except Exception as error:
                self._fail(error)
                outputs = []
            for output in outputs:
                if output.finish_reason is not None:
                    self._ended(output.sequence)
                if output.sequence in self._outputs:
                    self._outputs[output.sequence].put_nowait(output)
            await asyncio.sleep(0)
        self._task = None

    def _fail(self, error: Exception) -> None:
        """A step that failed leaves no sequence of which one could say where it stands."""
        logger.error("a step of the model failed; the answers in the making end with it", exc_info=error)
        for sequence, arrived in self._outputs.items():
            self._engine.cancel(sequence)
            arrived.put_nowait(error)
