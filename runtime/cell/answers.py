"""How a handler's result, or its failure, becomes the answer to its input."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from ...shm.bell import now_ns
from ..actor.delegation import Delegation
from ..actor.handler import Handler
from ..error_text import described, forget_frames, is_of, place_of, text_of, traceback_of
from ..errors import Cancelled, DeadLetter, HandlerError, SlabwireError
from ..telemetry.flight_recorder import FAILED, Recorder, outcome_of
from .outlets import Outlets
from .work import Work

logger = logging.getLogger("slabwire")

# What ends the process that it is raised in, as everywhere in Python. All else that a handler raises is an answer:
# other libraries have exceptions of their own that are no Exception, GeneratorExit and CancelledError among them.
ENDS_PROCESS = (SystemExit, KeyboardInterrupt)


class Answers:
    """For one actor instance; `buried(instance, work, reason)` is told of dead letters. One thread."""

    def __init__(
        self, instance: str, outlets: Outlets, recorder: Recorder, buried: Callable[[str, Work, str], None]
    ) -> None:
        self._instance = instance
        self._outlets = outlets
        self._stats = outlets.stats
        self._recorder = recorder
        self._buried = buried

    def give(self, work: Work, handler: Handler, result: Any) -> None:
        """Sends what a handler has returned, or hands its input on where it has returned that. Raises MessageError,
        TooManyHops or OutOfMemory if this cannot be done.
        """
        if type(result) is Delegation:
            self._outlets.delegate(work, result)
            return
        if not handler.spec.replies:
            return
        if result is None:
            self._outlets.answer_none(work, handler.spec.port)
        else:
            self._outlets.send(work, handler.spec.port, result)

    def fail(self, work: Work, error: BaseException) -> None:
        """Sends an error to the caller, and logs what is not ours with its traceback. Raises an error that ends the
        process once more: it is no answer.
        """
        if is_of(error, ENDS_PROCESS):
            raise error
        self._stats.count("failed")
        work.outcome = FAILED
        if is_of(error, SlabwireError):
            reported: SlabwireError = error
        elif is_of(error, asyncio.CancelledError):
            # Something that the handler awaited was cancelled: a handler that its caller cancels answers nothing.
            reported = Cancelled(f"{_port_of(work, self._instance)}: {text_of(error) or 'was cancelled'}")
        else:
            reported = handler_error(self._instance, error)
            logger.error("%s: a handler raised\n%s", self._instance, traceback_of(error))
        forget_frames(error)
        self._outlets.fail(work, reported)

    def refuse(self, work: Work, error: SlabwireError) -> None:
        """Says why an input is not handled: to its caller, unless that has cancelled it, and to the flight recorder."""
        self._recorder.record(self._stats.row, work, now := now_ns(), now, outcome_of(error))
        if isinstance(error, Cancelled):
            self._stats.count("cancelled")
            self._outlets.report_cancelled(work)
            return
        if isinstance(error, DeadLetter):
            self._stats.count("dead")
            self._buried(self._instance, work, str(error))
        self._outlets.fail(work, error)

    def note(self, error: BaseException, what: str, *, keep_frames: bool = False) -> None:
        """Counts and logs an error that is no answer, since nobody waits for one."""
        self._stats.count("failed")
        logger.error("%s: %s\n%s", self._instance, what, traceback_of(error))
        if not keep_frames:
            forget_frames(error)


def _port_of(work: Work, instance: str) -> str:
    return f"{work.handler.owner}.{work.handler.spec.port}" if work.handler is not None else instance


def handler_error(instance: str, error: BaseException) -> HandlerError:
    """What a caller gets for an exception that is none of ours."""
    place = place_of(error)
    text = f"{instance}: {described(error)}"
    return HandlerError(f"{text} ({place})" if place else text)
