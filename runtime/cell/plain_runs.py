"""Runs of plain handlers, which are done when they return."""

from __future__ import annotations

from contextvars import copy_context

from ...shm.bell import now_ns
from ..actor.handler import Handler
from ..message.header import Flag
from ..telemetry.flight_recorder import FAILED, Recorder
from .answers import ENDS_PROCESS, Answers
from .life import FINISHED
from .outlets import Outlets
from .work import Work, current

_FIELDS = Flag.FIELDS


class PlainRuns:
    """For one actor instance. One thread."""

    def __init__(self, outlets: Outlets, answers: Answers, recorder: Recorder) -> None:
        self._outlets = outlets
        self._answers = answers
        self._stats = outlets.stats
        self._recorder = recorder

    def run(self, work: Work, handler: Handler) -> None:
        """Handles one input and sends the result. Raises an exception of the handler that ends the process.

        Each input has a context of its own: a ContextVar that a handler sets is not set for the next input.
        """
        copy_context().run(self._run, work, handler)

    def _run(self, work: Work, handler: Handler) -> None:
        value, work.value = work.value, None
        stats = self._stats
        started = stats.words[stats.busy_since] = now_ns()  # `stats.begin`, without the price of a call
        current.set(work)
        try:
            result = handler.run(value, work.header.flags & _FIELDS)
            if result is not None:
                self._answers.give(work, handler, result)
            elif work.header.reply_to and handler.spec.replies:
                self._outlets.answer_none(work, handler.spec.port)
        except ENDS_PROCESS:
            self._recorder.record(stats.row, work, started, now_ns(), FAILED)
            raise
        except BaseException as error:
            self._answers.fail(work, error)
        finally:
            work.state = FINISHED
            ended = now_ns()
            stats.end(started, ended)
        self._recorder.record(stats.row, work, started, ended, work.outcome)

    def recover(self, lost: Work | None) -> None:
        """Notes the run of `lost`, in which a predecessor died (None: in no run). A run is recorded at its end, so only
        the successor can note this one.
        """
        began = self._stats.read()["busy_since_ns"]
        if lost is not None and began:
            died = Work(lost.header, lost.lane, lost.sequence, lost.attempt - 1)
            self._recorder.record(self._stats.row, died, began, 0, 0)
