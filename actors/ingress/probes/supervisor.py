"""Whether the supervisor of the graph answers. Without it what dies is not replaced, and nobody new comes in."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from ....runtime.clients.control import Control
from ....runtime.control.verbs import Hello

# Who looks more often is told the same again.
_FRESH_S = 1.0
# It answers in well under a millisecond; one that starts many processes at once may take longer.
_ANSWER_S = 2.0


class Supervisor:
    """Asks what only a supervisor whose loop turns can answer. `ask` blocks, and raises where there is no answer."""

    def __init__(
        self, graph: str, ask: Callable[[], object] | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._graph = graph
        self._ask = ask or self._hello
        self._clock = clock
        self._answered = -_FRESH_S

    def _hello(self) -> None:
        """What clients ask it first, over the socket that they use."""
        with Control(self._graph, timeout_s=_ANSWER_S) as control:
            control.request(Hello())

    async def reason(self) -> str:
        """Why it cannot do its work; "" where it can."""
        if self._clock() - self._answered < _FRESH_S:
            return ""
        try:
            await asyncio.to_thread(self._ask)
        except Exception as error:
            return f"{error}: it is stopped or hangs, and what dies meanwhile is not replaced; see its log"
        self._answered = self._clock()
        return ""
