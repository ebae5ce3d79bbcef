"""Questions to all workers over the control line, and their answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

from ..control.worker_line import Holdings, Order, TellHoldings

# A worker answers between two handlers. One that is deep in a handler is not waited for longer than this.
ANSWER_WITHIN_S = 1.5


class WorkerQueries:
    """The supervisor's side; `tell(worker, order)` sends. One asyncio loop."""

    def __init__(self, tell: Callable[[str, Order], None]) -> None:
        self._tell = tell
        self._last_token = 0
        self._awaited: dict[tuple[int, str], asyncio.Future[dict[str, Any]]] = {}

    async def holdings(self, workers: Iterable[str]) -> dict[str, dict[str, Any] | None]:
        """What each worker says of its blocks; None for one that did not answer in time."""
        self._last_token += 1
        token, loop = self._last_token, asyncio.get_running_loop()
        awaited = {name: loop.create_future() for name in workers}
        self._awaited.update({(token, name): future for name, future in awaited.items()})
        try:
            for name in awaited:
                self._tell(name, TellHoldings(token))
            if awaited:
                await asyncio.wait(awaited.values(), timeout=ANSWER_WITHIN_S)
            return {name: future.result() if future.done() else None for name, future in awaited.items()}
        finally:
            for name in awaited:
                del self._awaited[token, name]

    def heard(self, worker: str, answer: Holdings) -> None:
        """A worker's answer; late ones are dropped."""
        future = self._awaited.get((answer.token, worker))
        if future is not None and not future.done():
            future.set_result(answer.holdings)
