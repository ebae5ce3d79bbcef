"""Which connections can be read or written: an epoll of their own, inside the one that the loop sleeps in."""

from __future__ import annotations

import asyncio
import select
from collections.abc import Callable
from typing import Protocol

READ, WRITE = select.EPOLLIN, select.EPOLLOUT


class Watched(Protocol):
    """Who waits for a descriptor."""

    def ready(self, events: int) -> None:
        """It can be read (`READ`) or written (`WRITE`), or has an error or an end, which is something else. Once in a
        while it is called in vain.
        """


# What is looked at in one turn of the loop.
CALLS_A_TURN = 256


class Watcher:
    """Calls those that it watches, up to `CALLS_A_TURN` in one turn of the loop, all in their turn. On one loop.

    `add_reader` of asyncio makes five objects for each descriptor, and calls as many functions for each event. Here
    those that are ready together are one event of the loop.

    At most `steps` of what takes long are to be done in a turn: who does one takes it from `steps_left`, and who finds
    none there is called again in the next turn.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, steps: int) -> None:
        self._loop = loop
        self._steps = self.steps_left = steps
        self._epoll = select.epoll()
        self._poll = self._epoll.poll
        self._watched: dict[int, Watched] = {}
        self._afterwards: list[tuple[Callable[[Exception | None], object], Exception | None]] = []
        self._is_calling = self._closes = False
        loop.add_reader(self._epoll.fileno(), self._call)

    def add(self, descriptor: int, watched: Watched, events: int = READ) -> None:
        """Calls it from now on."""
        self._epoll.register(descriptor, events)
        self._watched[descriptor] = watched

    def hand_over(self, descriptor: int, watched: Watched) -> None:
        """Calls another one from now on."""
        self._watched[descriptor] = watched

    def change(self, descriptor: int, before: int, now: int) -> None:
        """Of one that is watched, or is still to be: other events. For 0 it is not called even for errors."""
        if not now:
            self._epoll.unregister(descriptor)
        elif before:
            self._epoll.modify(descriptor, now)
        else:
            self._epoll.register(descriptor, now)

    def remove(self, descriptor: int, events: int = READ) -> None:
        """Forgets one that was watched for these events, before its descriptor is closed."""
        del self._watched[descriptor]
        if events:
            self._epoll.unregister(descriptor)
        if self._closes:
            self.close()

    def close(self) -> None:
        """Gives its own descriptor back, as soon as nobody is watched any more."""
        self._closes = True
        if not self._watched and not self._epoll.closed:
            self._loop.remove_reader(self._epoll.fileno())
            self._epoll.close()

    def soon(self, call: Callable[[Exception | None], object], error: Exception | None) -> None:
        """Has it called while nobody is who was called from here: at the end of this turn, or in the next one."""
        if self._is_calling:
            self._afterwards.append((call, error))
        else:
            self._loop.call_soon(call, error)

    def _call(self) -> None:
        watched, self._is_calling, self.steps_left = self._watched, True, self._steps
        try:
            for descriptor, events in self._poll(0, CALLS_A_TURN):
                try:
                    if descriptor in watched:  # else one that was called before has ended it
                        watched[descriptor].ready(events)
                except Exception as error:
                    self._tell(error)
        finally:
            self._is_calling = False
        while self._afterwards:
            call, argument = self._afterwards.pop()
            try:
                call(argument)
            except Exception as error:
                self._tell(error)

    def _tell(self, error: Exception) -> None:
        self._loop.call_exception_handler({"message": "a connection could not be served", "exception": error})
