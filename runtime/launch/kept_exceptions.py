"""Handlers of a graph in one process: what they raise is kept as it was raised, and Ctrl-C passes through the graph."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterator
from functools import wraps
from types import TracebackType
from typing import Any

from ..actor.handler import Handler
from ..cell.answers import handler_error
from ..cell.work import current
from ..error_text import exit_code, frames_of, is_of, name_of, shown, traceback_of
from ..errors import Cancelled, HandlerError, SlabwireError

logger = logging.getLogger("slabwire")

# Errors whose callers have not asked yet.
_MOST_KEPT = 256
_PASS = (GeneratorExit, asyncio.CancelledError)


class Failures:
    """What handlers have raised, by request; and what was to end the whole program (`interrupt`)."""

    def __init__(self) -> None:
        self.interrupt: BaseException | None = None
        self._kept: OrderedDict[tuple[int, int], tuple[BaseException, TracebackType | None]] = OrderedDict()

    def guard(self, instance: str, handler: Handler) -> None:
        """From now on the exceptions of an instance's handler are noted."""
        around = {
            "plain": self._plain,
            "reply_stream": self._plain,
            "generator": self._generator,
            "coroutine": self._coroutine,
            "async_generator": self._async_generator,
        }
        handler.function = around[handler.spec.kind](handler.function, _Noting(self._noted, instance))

    def end_program(self, error: BaseException) -> None:
        """Keeps an exception that ends the program, for the thread that drives the graph."""
        self.interrupt = error

    def forget(self) -> None:
        """Drops all exceptions: nobody will ask for them any more."""
        self._kept.clear()

    def explain(self, key: tuple[int, int], error: SlabwireError) -> None:
        """Makes what the handler raised the cause of what its caller gets."""
        cause, trace = self._kept.pop(key, (None, None))
        if cause is None:
            return
        if is_of(cause, HandlerError) and cause.__cause__ is not None:
            error.__cause__ = cause.__cause__  # it was raised by another handler, which this one had called
        else:
            error.__cause__ = BaseException.with_traceback(cause, trace)

    def _noted(self, error: BaseException, instance: str) -> SlabwireError:
        """The error that the graph sees in the place of an exception."""
        work = current.get()
        kind = type(error)  # the class that it says it has may be a lie, or raise
        if issubclass(kind, SlabwireError):
            seen: SlabwireError = error  # type: ignore[assignment]
        elif issubclass(kind, SystemExit):
            code = shown(exit_code(error))
            seen = HandlerError(
                f"{instance}: sys.exit({code}) was called; in a process of its own this ends the worker"
            )
        elif not issubclass(kind, KeyboardInterrupt):
            # As text: a record of the log that held the exception would hold the frames, and arrays in them. Whoever
            # waits gets the exception itself.
            level = logging.DEBUG if work is not None and work.header.reply_to else logging.ERROR
            logger.log(level, "%s: a handler raised\n%s", instance, traceback_of(error))
            seen = handler_error(instance, error)
        else:
            self.interrupt = error
            seen = Cancelled(f"{instance}: {name_of(error)} in a handler")
        if work is not None and self.interrupt is None:
            self._kept[work.header.key] = (error, frames_of(error))
            if len(self._kept) > _MOST_KEPT:
                self._kept.popitem(last=False)
        return seen

    def _plain(self, function: Callable[..., Any], noting: _Noting) -> Callable[..., Any]:
        @wraps(function)
        def guarded(**fields: Any) -> Any:
            with noting:
                return function(**fields)

        return guarded

    def _generator(self, function: Callable[..., Any], noting: _Noting) -> Callable[..., Any]:
        @wraps(function)
        def guarded(**fields: Any) -> Iterator[Any]:
            with noting:
                yield from function(**fields)

        return guarded

    def _coroutine(self, function: Callable[..., Any], noting: _Noting) -> Callable[..., Any]:
        @wraps(function)
        async def guarded(**fields: Any) -> Any:
            with noting:
                return await function(**fields)

        return guarded

    def _async_generator(self, function: Callable[..., Any], noting: _Noting) -> Callable[..., Any]:
        @wraps(function)
        async def guarded(**fields: Any) -> AsyncIterator[Any]:
            with noting:
                async with contextlib.aclosing(function(**fields)) as items:
                    async for item in items:
                        yield item

        return guarded


class _Noting:
    """Around a handler of one instance; several may be inside at once."""

    def __init__(self, noted: Callable[[BaseException, str], SlabwireError], instance: str) -> None:
        self._noted = noted
        self._instance = instance

    def __enter__(self) -> None:
        """Nothing to do."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None or is_of(error, _PASS):
            return
        seen = self._noted(error, self._instance)
        if seen is not error:
            raise seen from None
