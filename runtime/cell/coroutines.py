"""Runs of coroutines and asynchronous generators: one task of the worker's loop for each input."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from ...shm.bell import now_ns
from ..actor.handler import Handler
from ..dataplane.input_streams import InputStream, InputStreams
from ..error_text import is_of
from .answers import Answers
from .input_states import HANDED_ON, STOPPING
from .outlets import Outlets
from .runs import HandlerRunner, Runs
from .work import Work, current


class Coroutines(HandlerRunner):
    """Tasks go on by the loop alone. `inputs` has the streams that callers send to their handlers."""

    def __init__(self, runs: Runs, outlets: Outlets, answers: Answers, inputs: InputStreams) -> None:
        super().__init__(runs, outlets, answers)
        self._tasks: dict[Work, asyncio.Task[None]] = {}
        self._inputs = inputs
        self._streams: dict[Work, InputStream] = {}  # that their callers send

    def start(self, work: Work, handler: Handler) -> None:
        """Begins the task of an input."""
        if handler.stream is not None:  # now, so that no item comes for which there is no stream
            self._streams[work] = self._inputs.open(work.header.key, work.row, handler)
        run = self._run if handler.spec.kind == "coroutine" else self._run_stream
        token = current.set(work)
        # Not by the loop, whose way is that of tasks which actors begin for themselves.
        task = self._tasks[work] = asyncio.Task(run(work, handler), loop=self._runs.loop)
        task.add_done_callback(lambda task: self._ended(work, task))
        current.reset(token)

    def stop(self, work: Work) -> bool:
        """Tells the task of an input to end; True: the input is finished when the task has ended. A task whose input is
        handed on ends with the loop.
        """
        task = self._tasks.get(work)
        if task is not None and work.state is not HANDED_ON:
            task.cancel()
        return task is not None

    def _arguments(self, work: Work, handler: Handler) -> dict[str, Any]:
        arguments = work.take_arguments(handler)
        if handler.stream is not None:
            arguments[handler.stream] = self._streams[work]
        return arguments

    async def _run(self, work: Work, handler: Handler) -> None:
        try:
            result = await handler.function(**self._arguments(work, handler))
            if work.state is not HANDED_ON:
                self._answers.give(work, handler, result)
        except (Exception, asyncio.CancelledError) as error:
            self._fail(work, error)
        self._end(work)

    async def _run_stream(self, work: Work, handler: Handler) -> None:
        port = handler.spec.port
        try:
            async with contextlib.aclosing(handler.function(**self._arguments(work, handler))) as items:
                async for item in items:
                    self._outlets.send(work, port, item, item=True)
                    if work.outbox:
                        await self._sent(work)
            if work.state is not HANDED_ON:
                self._outlets.end_stream_of(work, port)
        except (Exception, asyncio.CancelledError) as error:
            self._fail(work, error)
        self._end(work)

    async def _sent(self, work: Work) -> None:
        """Pauses a stream until its items are on their way."""
        sent = self._runs.loop.create_future()
        self._runs.when_sent(work, lambda _: None if sent.done() else sent.set_result(None))
        await sent

    def _fail(self, work: Work, error: BaseException) -> None:
        was_stopped = work.state is STOPPING and is_of(error, asyncio.CancelledError)
        if work.state is not HANDED_ON and not was_stopped:
            self._answers.fail(work, error)

    def _end(self, work: Work) -> None:
        self._stats.end(work.started_ns, now_ns(), waited=True)
        self._forget(work)
        self._runs.done(work)

    def _forget(self, work: Work) -> None:
        self._tasks.pop(work, None)
        if (stream := self._streams.pop(work, None)) is not None:
            self._inputs.close(stream)

    def _ended(self, work: Work, task: asyncio.Task[None]) -> None:
        """Sees off a task that did not come to its own end: one that was cancelled before its first step, and one whose
        handler raised what is no Exception. (Inside the task a GeneratorExit may also mean that it is thrown away.)
        """
        if task.cancelled():
            self._forget(work)
            self._runs.finish(work)
        elif (error := task.exception()) is not None and work.state is not HANDED_ON:
            self._answers.fail(work, error)
            self._end(work)
