"""What the application borrows from the actor that runs it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from ....runtime.actor.stream_group import OnItems, StreamGroup
from ....runtime.errors import Interrupted


class Ask(Protocol):
    """An actor's verbs for asking other actors: `slabwire.Actor` itself has them."""

    def streams(self, on_items: OnItems | None = None) -> StreamGroup: ...

    async def call(self, target: str, /, *args: Any, timeout_s: float | None = None, **fields: Any) -> Any: ...


@dataclass(slots=True)
class ServingState:
    """While `draining`, what is in flight goes on, readiness is refused, and so is new work. Once it `is_over` what is
    still in flight ends with an error.
    """

    draining: bool = False
    _over: asyncio.Event = field(default_factory=asyncio.Event, init=False)
    _told: list[Callable[[Interrupted], None]] = field(default_factory=list, init=False)

    @property
    def is_over(self) -> bool:
        return self._over.is_set()

    def tell(self, call: Callable[[Interrupted], None]) -> None:
        """Once it is over, `call` gets the error with which what is still in flight ends."""
        self._told.append(call)

    def end(self) -> None:
        """The time is over."""
        self._over.set()
        for call in self._told:
            call(stopped())

    async def until_over(self) -> None:
        """Raises Interrupted when the time is over."""
        await self._over.wait()
        raise stopped()


def stopped() -> Interrupted:
    """The error of an answer that the end of the server has cut short."""
    return Interrupted("This server stopped before the answer was complete; ask again.")
