"""The sleep of a local connection whose thread belongs to asyncio: the loop sleeps, and nobody can spin for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from .local import LocalConnection


class LoopParking:
    """Parks a connection on the running loop. `awake()` is called when its bell rings, its supervisor sends something,
    or the time is over; the park has ended by then. One thread.
    """

    def __init__(self, connection: LocalConnection, awake: Callable[[], None]) -> None:
        self._connection = connection
        self._awake = awake
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._descriptors = connection.bell.fd, connection.link.channel.fileno()
        for each in self._descriptors:
            self._loop.add_reader(each, self._called)

    def park(self, reasons: int, has_news: Callable[[], object], longest_s: float | None) -> None:
        """Announces the sleep, to be rung for `reasons`. The loop may sleep any time from here on, so `has_news` looks
        once more.
        """
        self._stop_timer()
        longest_s = self._connection.wait.begin_park(reasons, has_news, longest_s)
        if longest_s is not None:
            self._timer = self._loop.call_later(longest_s, self._called)

    def end(self) -> None:
        """Takes the announcement back, and silences the bell."""
        self._stop_timer()
        self._connection.wait.end_park()

    def _called(self) -> None:
        self.end()
        self._awake()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def close(self) -> None:
        """Listens no more; nothing where the loop is closed."""
        self._stop_timer()
        if not self._loop.is_closed():
            for each in self._descriptors:
                self._loop.remove_reader(each)


async def opened(name: str, answer_within_s: float) -> LocalConnection:
    """A connection, made in a thread beside the loop. Raises what `LocalConnection` does."""
    opening = asyncio.ensure_future(
        asyncio.to_thread(LocalConnection, name, may_spin=False, answer_within_s=answer_within_s)
    )
    try:
        return await asyncio.shield(opening)
    except asyncio.CancelledError:
        opening.add_done_callback(_close_opened)
        raise


def _close_opened(opening: asyncio.Future[LocalConnection]) -> None:
    """Whoever wanted it was cancelled while it was being opened."""
    if not opening.cancelled() and opening.exception() is None:
        opening.result().close()
