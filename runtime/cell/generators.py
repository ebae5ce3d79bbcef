"""Runs of generators: one item of each stream in turn, as long as its items find room."""

from __future__ import annotations

from collections.abc import Iterator
from contextvars import Context, copy_context
from typing import Any, NamedTuple

from ...shm.bell import now_ns
from ..actor.handler import Handler
from ..errors import DeadlineExceeded
from ..telemetry.flight_recorder import EXPIRED
from .answers import ENDS_PROCESS, Answers
from .input_states import RUNNING
from .outlets import Outlets
from .runs import HandlerRunner, Runs
from .work import Work, current

_NO_MORE = object()


class _Stream(NamedTuple):
    """A generator in a context of its own."""

    handler: Handler
    context: Context
    items: Iterator[Any]


class Generators(HandlerRunner):
    """Takes an item of each stream in turn."""

    def __init__(self, runs: Runs, outlets: Outlets, answers: Answers) -> None:
        super().__init__(runs, outlets, answers)
        self._streams: dict[Work, _Stream] = {}

    def start(self, work: Work, handler: Handler) -> None:
        """Makes the generator of an input."""
        context = copy_context()
        context.run(current.set, work)
        try:
            items = handler.function(**work.take_arguments(handler))
        except BaseException as error:
            self._answers.fail(work, error)
            self._runs.done(work)
        else:
            self._streams[work] = _Stream(handler, context, items)

    def stop(self, work: Work) -> bool:
        """Ends the generator of an input, if that is not at its end; False: it does not go on by itself."""
        stream = self._streams.pop(work, None)
        if stream is not None:
            self._close(stream)
        return False

    def advance(self) -> bool:
        """One item of each generator that has room for it; True if there was any."""
        advanced = False
        for work, stream in list(self._streams.items()):
            if work.state is not RUNNING:
                continue  # another one has stopped it meanwhile
            if work.header.deadline_ns and now_ns() > work.header.deadline_ns:
                self._expire(work)
            elif not work.outbox or self._outlets.flush(work):
                self._next_item(work, stream)
            else:
                continue
            advanced = True
        return advanced

    def _expire(self, work: Work) -> None:
        """The caller's time is over in the middle of a stream."""
        work.outcome = EXPIRED
        self._stats.count("expired")
        self._outlets.abandon(work)
        self.stop(work)
        self._outlets.fail(work, DeadlineExceeded("the stream did not end within the caller's time"))
        self._runs.done(work)

    def _next_item(self, work: Work, stream: _Stream) -> None:
        """Sends one item, or ends the stream if there are no more."""
        port, started = stream.handler.spec.port, now_ns()
        self._stats.begin(started)
        try:
            item = stream.context.run(next, stream.items, _NO_MORE)
            if item is not _NO_MORE:
                self._outlets.send(work, port, item, item=True)
                return
            self._outlets.end_stream_of(work, port)
        except BaseException as error:
            self._answers.fail(work, error)
            self._close(stream)
        finally:
            self._stats.end(started, now_ns())
        self._streams.pop(work, None)
        self._runs.done(work)

    def _close(self, stream: _Stream) -> None:
        """Ends a generator that is not at its end. What its `finally` raises answers nobody."""
        try:
            stream.context.run(stream.items.close)  # type: ignore[attr-defined]
        except ENDS_PROCESS:
            raise
        except BaseException as error:
            self._answers.note(error, "a generator raised when it was closed")

    def waits_for_room(self) -> bool:
        """Whether items of any stream wait."""
        return any(work.outbox for work in self._streams)

    def can_progress(self) -> bool:
        """Whether `advance` would get anywhere now."""
        return any(not work.outbox or self._outlets.could_go(work) for work in self._streams)

    def next_due_ns(self) -> int:
        """When the first stream that waits for room is over, on CLOCK_MONOTONIC; 0 for never."""
        deadlines = (work.header.deadline_ns for work in self._streams if work.outbox)
        return min(filter(None, deadlines), default=0)
