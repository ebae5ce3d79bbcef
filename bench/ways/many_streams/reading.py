"""What all readers do alike: write each item to its stream's socket, and count."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic_ns, thread_time_ns

from ....runtime.host.descriptors import raise_limit, require_free
from .item import made_ns
from .sink import connected

# So many streams of all are timed: timing each item would cost more than carrying it.
_TIMED = 100
_UNTIL_S = 100.0
# From the order to cancel on: by then somebody looks when the source is quiet.
_CANCEL_AFTER_S = 0.1


class Outlet:
    """Of one stream: its items go to its socket."""

    __slots__ = ("_send", "_writer")

    def __init__(self, writer: Writer, send: Callable[[bytes], object]) -> None:
        self._writer = writer
        self._send = send

    def put(self, items: list[str]) -> None:
        """They are written when all that came with them is there."""
        due = self._writer.due
        if not due:
            asyncio.get_running_loop().call_soon(self._writer.flush)
        due.append((self._send, items))


class TimedOutlet(Outlet):
    """Notes as well how old each item is."""

    __slots__ = ()

    def put(self, items: list[str]) -> None:
        now_ns = monotonic_ns()
        self._writer.latencies_ns.extend(now_ns - made_ns(each) for each in items)
        super().put(items)


class Writer:
    """All sockets of a reader. What one turn of the loop brings is written at its end, and that is timed as a whole."""

    def __init__(self, path: str, streams: int) -> None:
        raise_limit()
        require_free(streams, f"a reader of {streams} streams")
        self.due: list[tuple[Callable[[bytes], object], list[str]]] = []
        self.latencies_ns: list[int] = []
        self.items = 0
        self.wrote_ns = 0
        self._ends = [connected(path, number) for number in range(streams)]
        each_of = max(1, streams // _TIMED)
        self.outlets = [
            (Outlet if number % each_of else TimedOutlet)(self, end.sendall) for number, end in enumerate(self._ends)
        ]
        self._awaited = 0
        self._came: asyncio.Future[int] | None = None

    def flush(self) -> None:
        """Writes what is due."""
        due, self.due = self.due, []
        began_ns = thread_time_ns()
        for send, items in due:
            send("".join(items).encode())
        self.wrote_ns += thread_time_ns() - began_ns
        self.items += sum(len(items) for _, items in due)
        if self._came is not None and self.items >= self._awaited and not self._came.done():
            self._came.set_result(monotonic_ns())

    async def until(self, items: int) -> int:
        """When so many were written, on the clock of `monotonic_ns`. Raises TimeoutError."""
        if self.items >= items:
            return monotonic_ns()
        self._awaited, self._came = items, asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(_UNTIL_S):
                return await self._came
        except TimeoutError:
            raise TimeoutError(f"{self.items} of {items} items came within {_UNTIL_S:g} s") from None
        finally:
            self._came = None


class Reading:
    """The part of each reader that is the same: what the bench asks it for."""

    writer: Writer
    _cancelling: asyncio.Task[int]

    def connect(self, path: str, streams: int) -> None:
        """To the sink."""
        self.writer = Writer(path, streams)

    async def until(self, items: int) -> int:
        """When so many items were written."""
        return await self.writer.until(items)

    def wrote(self) -> list[int]:
        """How many items, and what that has cost in nanoseconds of CPU."""
        return [self.writer.items, self.writer.wrote_ns]

    def latencies_us(self) -> list[float]:
        """How old items were when they came, since they were asked for last."""
        found, self.writer.latencies_ns = self.writer.latencies_ns, []
        return [each / 1e3 for each in found]

    async def cancel(self) -> None:
        """Cancels all streams at once, a moment later."""
        self._cancelling = asyncio.create_task(self._cancel_later())

    async def cancelled(self) -> int:
        """When that began, once all are cancelled."""
        return await self._cancelling

    async def _cancel_later(self) -> int:
        await asyncio.sleep(_CANCEL_AFTER_S)
        began_ns = monotonic_ns()
        await self._cancel()
        return began_ns

    async def _cancel(self) -> None:
        """All streams."""
        raise NotImplementedError
