"""What the application borrows from the actor that runs it."""

from __future__ import annotations

import asyncio
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
    """While `draining`, what is in flight goes on, readiness is refused, and so is new work. Once `is_over` is set what
    is still in flight ends with an error.
    """

    draining: bool = False
    is_over: asyncio.Event = field(default_factory=asyncio.Event)

    async def until_over(self) -> None:
        """Raises Interrupted when the time is over."""
        await self.is_over.wait()
        raise Interrupted("This server stopped before the answer was complete; ask again.")
