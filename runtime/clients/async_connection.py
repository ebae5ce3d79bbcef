"""A connection to a graph on this host for asyncio: the loop sleeps for it, and nobody can spin."""

from __future__ import annotations

import asyncio
import select
from collections.abc import Callable
from typing import Any, Protocol

from ...shm.bell import now_ns
from ..dataplane.async_calls import AsyncCalls, until
from ..dataplane.pending import deadline_of
from ..errors import ClientClosed, Disconnected, Overloaded, mark_not_begun
from ..host.forks import part_in_children
from .connection import LOOK_AGAIN_S, closed_error, late_answer, seconds_for_an_answer
from .local import LocalConnection

# The loop tells of a graph's end, unless it was held up. A look costs a system call.
_LOOK_EVERY_NS = 5_000_000


class AsyncLocalConnection:
    """By shared memory: one loop, one thread, any number of tasks. After its graph has ended the first call connects
    anew. `most_calls`: how many may be in flight, if not as many as the graph says of clients.
    """

    local: LocalConnection
    calls: AsyncCalls

    def __init__(self, name: str, most_calls: int = 0) -> None:
        self.name = name
        self._most_calls = most_calls
        self.whose = f"graph {name!r}"
        self.is_gone = False
        self._closed = False
        self._renewing = asyncio.Lock()
        self._looked_ns = 0
        part_in_children(self)

    def part(self) -> None:
        """In a forked child, where neither the memory is nor the loop."""
        vars(self).update(_leave=lambda: None)

    async def open(self, wait_s: float | None) -> None:
        """Connects. Raises Disconnected where no such graph runs within `wait_s`."""
        until_ns = deadline_of(wait_s or 0.0)
        while True:
            try:
                self._enter(await opened(self.name, seconds_for_an_answer(0), self._most_calls))
                return
            except Disconnected:
                if now_ns() >= until_ns:
                    raise
            await asyncio.sleep(LOOK_AGAIN_S)

    def _enter(self, local: LocalConnection) -> None:
        self.local = local
        self._loop = local.caller.streams.loop = asyncio.get_running_loop()
        self.is_gone = False
        self.calls = AsyncCalls(local.caller, local.caller.calls, self._loop)
        self._end = select.poll()
        self._end.register(local.link.channel.fileno(), select.POLLIN)
        self._next_look: asyncio.Handle | None = None
        self._parking = LoopParking(local, self._take_in)
        self._park()

    @property
    def ports(self) -> list[str]:
        """The exposed ports, as `actor.port`."""
        return self.local.ports

    def check(self, target: str, args: tuple[Any, ...], fields: dict[str, Any]) -> bool:
        """Says at once what is wrong with a call that is begun later; whether it sends a stream."""
        self.local.caller.checked(target, args, fields, stream=True)
        return self.local.caller.ports.sent_stream(target) is not None

    def ready(self) -> AsyncCalls | None:
        """Where calls begin; None where the graph has ended."""
        now = now_ns()
        if now - self._looked_ns > _LOOK_EVERY_NS and not self.is_gone:
            self._looked_ns = now
            if self._end.poll(0):
                self._parking.end()
                self._take_in(called=True)
        return None if self.is_gone else self.calls

    async def live(self, deadline_ns: int) -> AsyncCalls:
        """Where calls begin, connected anew if the graph has ended since. Raises Disconnected."""
        if self.ready() is None:
            await self._renew(self.local, deadline_ns)
        return self.calls

    async def _renew(self, old: LocalConnection, deadline_ns: int) -> None:
        """Connects anew in place of a connection, unless another task has."""
        try:
            async with until(deadline_ns):
                await self._renewing.acquire()
        except TimeoutError:
            raise late_answer(self.whose) from None
        try:
            if self.local is old and not self._closed:
                fresh = await opened(self.name, seconds_for_an_answer(deadline_ns), self._most_calls)
                if not self._closed:
                    self._leave()
                    self._enter(fresh)
                else:
                    fresh.close()
            if self._closed:
                raise closed_error(self.whose)
        except (Disconnected, Overloaded) as error:
            raise mark_not_begun(error) from None
        finally:
            self._renewing.release()

    def _take_in(self, *, called: bool) -> None:
        """Takes in answers, and news where the supervisor has called.

        After answers it looks again behind the tasks that they have woken, and parks when there are no more. Until then
        nobody rings for those that come meanwhile.
        """
        caller = self.local.caller
        before = caller.in_flight
        try:
            came = self.local.take_in() if called else caller.pump()
        except Disconnected:
            self.is_gone = True
            self._stop_looking()
            self._parking.close()
            return
        if before - caller.in_flight > 1:
            caller.rings.hold()
        if came:
            self._stop_looking()
            self._next_look = self._loop.call_soon(self._look_again)
        else:
            self._park()

    def _look_again(self) -> None:
        self.local.caller.rings.ring()
        self._take_in(called=False)

    def _stop_looking(self) -> None:
        if self._next_look is not None:
            self._next_look.cancel()
            self._next_look = None

    def _park(self) -> None:
        endpoint = self.local.endpoint
        look_at = endpoint.trim(now_ns())
        left_s = max(0.0, (look_at - now_ns()) / 1e9) if look_at else None
        self._parking.park(self.local.caller.reasons(), self._has_news, left_s)

    def _has_news(self) -> bool:
        return self.local.caller.collect() or self.local.caller.has_news()

    def _leave(self) -> None:
        self._stop_looking()
        self._parking.close()
        self.local.caller.pump()  # an answer that has come is no call in flight
        self.local.caller.fail_all(ClientClosed("the client was closed"))
        self.local.caller.rings.ring()
        self.local.close()

    async def close(self) -> None:
        """Ends the connection: calls in flight fail. Arrays that were received stay valid."""
        self._closed = True
        self._leave()


class Awake(Protocol):
    """What is called when a park has ended."""

    def __call__(self, *, called: bool) -> None: ...


class LoopParking:
    """Parks a connection on the running loop. `awake(called=)` is called when its bell rings, the time is over, or its
    supervisor sends something, which `called` says; the park has ended by then. One thread.
    """

    def __init__(self, connection: LocalConnection, awake: Awake) -> None:
        self._connection = connection
        self._awake = awake
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._descriptors = connection.bell.fd, connection.link.channel.fileno()
        for each, called in zip(self._descriptors, (False, True), strict=True):
            self._loop.add_reader(each, self._end_by, called)

    def park(self, reasons: int, has_news: Callable[[], object], longest_s: float | None) -> None:
        """Announces the sleep, to be rung for `reasons`. The loop may sleep any time from here on, so `has_news` looks
        once more.
        """
        self._stop_timer()
        longest_s = self._connection.wait.begin_park(reasons, has_news, longest_s)
        if longest_s is not None:
            self._timer = self._loop.call_later(longest_s, self._end_by, False)

    def end(self) -> None:
        """Takes the announcement back, and silences the bell."""
        self._stop_timer()
        self._connection.wait.end_park()

    def _end_by(self, called: bool) -> None:
        self.end()
        self._awake(called=called)

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


async def opened(name: str, answer_within_s: float, most_calls: int) -> LocalConnection:
    """A connection, made in a thread beside the loop. Raises what `LocalConnection` does."""
    opening = asyncio.ensure_future(
        asyncio.to_thread(LocalConnection, name, may_spin=False, answer_within_s=answer_within_s, calls=most_calls)
    )
    try:
        return await asyncio.shield(opening)
    except asyncio.CancelledError:
        opening.add_done_callback(_close_opened)
        raise


def _close_opened(opening: asyncio.Future[LocalConnection]) -> None:
    """The task that wanted the connection was cancelled while the connection was being opened."""
    if not opening.cancelled() and opening.exception() is None:
        opening.result().close()
