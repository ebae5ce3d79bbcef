"""How a handler's result, or its failure, becomes the answer to its input."""

from __future__ import annotations

import logging
from typing import Any

from .code import where
from .errors import HandlerError, SlabwireError
from .handler import Handler
from .outlets import Outlets
from .recorder import FAILED
from .stats import CellStats
from .work import Work

logger = logging.getLogger("slabwire")


class Answers:
    """For one actor instance. One thread."""

    def __init__(self, instance: str, outlets: Outlets, stats: CellStats) -> None:
        self._instance = instance
        self._outlets = outlets
        self._stats = stats

    def give(self, work: Work, handler: Handler, result: Any) -> None:
        """Sends what a handler has returned. Raises MessageError or OutOfMemory if it cannot be sent."""
        if not handler.spec.replies:
            return
        if result is None:
            self._outlets.answer_none(work, handler.spec.port)
        else:
            self._outlets.send(work, handler.spec.port, result)

    def fail(self, work: Work, error: BaseException) -> None:
        """Sends an error to whoever waits, and logs what is not ours with its traceback."""
        self._stats.count("failed")
        work.outcome = FAILED
        if isinstance(error, SlabwireError):
            reported: SlabwireError = error
        else:
            reported = handler_error(self._instance, error)
            logger.error("%s: a handler raised", self._instance, exc_info=error)
        error.__traceback__ = None  # its frames would keep leases alive
        self._outlets.fail(work, reported)


def handler_error(instance: str, error: BaseException) -> HandlerError:
    """What a caller gets for an exception that is none of ours."""
    place = where(error)
    text = f"{instance}: {type(error).__name__}: {error}"
    return HandlerError(f"{text} ({place})" if place else text)
