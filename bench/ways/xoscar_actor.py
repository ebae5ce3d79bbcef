"""xoscar: a call of an actor in a process of its own pool, awaited on an asyncio loop."""

from __future__ import annotations

import asyncio
import os
from types import TracebackType
from typing import Any, Self

import xoscar
from xoscar.backends.allocate_strategy import ProcessIndex

from ..harness.contestant import Payload, Seats, checksum
from .callers import carried


class _Echo(xoscar.Actor):  # type: ignore[misc]
    async def echo(self, payload: Payload) -> Payload:
        return payload

    async def pid(self) -> int:
        return os.getpid()


class XoscarEcho:
    name = "xoscar"
    title = "xoscar, actor call"

    def __init__(self, seats: Seats) -> None:
        self._loop = asyncio.new_event_loop()
        self._loop.run_until_complete(self._start())
        os.sched_setaffinity(self.pid, {seats.echo})

    async def _start(self) -> None:
        self._pool: Any = await xoscar.create_actor_pool("127.0.0.1", n_process=1)
        # Not in the pool of this process, where a call is one of a function.
        where = {"address": self._pool.external_address, "allocate_strategy": ProcessIndex(1)}
        self._actor: Any = await xoscar.create_actor(_Echo, **where)
        self.pid: int = await self._actor.pid()

    def begin(self, nbytes: int, trips: int, *, spinning: bool) -> None:
        """Nothing: it waits in its own way."""

    def prepare(self, payload: Payload) -> Payload:
        return payload

    def trip(self, payload: Payload) -> int:
        return checksum(self._loop.run_until_complete(self._actor.echo(payload)))

    def carry(self, count: int, in_flight: int) -> None:
        self._loop.run_until_complete(carried(self._actor.echo, count, in_flight))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.run_until_complete(self._pool.stop())
        self._loop.close()
