"""The log's lines about requests: one now and then while all is well, all errors but those of a flood.

A line has fields, `name=value`; never what was asked or answered.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from ..counts.sampling import OF_OURS_A_SECOND, Sampling
from .request_id import Names

logger = logging.getLogger("slabwire")


class RequestLines:
    """Of one process. `clock` gives seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._sampling, self._ours = Sampling(clock), Sampling(clock, OF_OURS_A_SECOND)

    def say(self, names: Names, model: str, status: int, took_s: float, first_s: float | None) -> None:
        """Takes note of a request that is over. `first_s`: seconds to its first token, if one came."""
        left_out = self._left_out(status)
        if left_out is None:
            return
        first = "" if first_s is None else f" first_token_s={first_s:.3f}"
        trace = f" trace={names.trace}" if names.trace else ""
        level = logging.ERROR if status >= 500 else logging.INFO
        text = "request status=%d model=%s seconds=%.3f%s id=%s%s%s"
        logger.log(level, text, status, model or "-", took_s, first, names.request, trace, left_out)

    def _left_out(self, status: int) -> str | None:
        """None: nothing is written."""
        if status >= 500:
            return self._ours.troubled()
        return self._sampling.troubled() if status >= 400 else self._sampling.well()
