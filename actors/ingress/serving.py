"""What the application borrows from the actor that runs it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any, Protocol


class Ask(Protocol):
    """An actor's verbs for asking other actors: `slabwire.Actor` itself has them."""

    def stream(
        self, target: str, /, *args: Any, timeout_s: float | None = None, **fields: Any
    ) -> AsyncGenerator[Any, None]: ...

    async def call(self, target: str, /, *args: Any, timeout_s: float | None = None, **fields: Any) -> Any: ...


@dataclass(slots=True)
class ServingState:
    """While `draining`, what is in flight goes on, readiness is refused, and so is new work."""

    draining: bool = False
