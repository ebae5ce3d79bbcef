"""Tasks of an actor that pause while what they have emitted finds no room, as generators pause at their `yield`."""

from __future__ import annotations

from collections.abc import Coroutine, Generator
from typing import Any

from .sends import Sends


async def paced(coroutine: Coroutine[Any, Any, Any], sends: Sends) -> Any:
    """Does what the coroutine does; behind each of its awaits it waits until the outbox is empty."""
    return await _Paced(coroutine, sends)


class _Paced:
    def __init__(self, coroutine: Coroutine[Any, Any, Any], sends: Sends) -> None:
        self._coroutine = coroutine
        self._sends = sends

    def __await__(self) -> Generator[Any, Any, Any]:
        step, argument = self._coroutine.send, None
        while True:
            try:
                awaited = step(argument)
            except StopIteration as end:
                return end.value
            try:
                argument = yield awaited
                if self._sends.are_held_up:
                    yield from self._sends.emptied()
                step = self._coroutine.send
            except BaseException as error:  # the task is cancelled, or thrown away
                step, argument = self._coroutine.throw, error
