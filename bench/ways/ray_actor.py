"""Ray: a call of an actor, payload and answer by its object store where they are large."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, Self

import ray

from ..harness.contestant import Payload, Seats, checksum
from .callers import carried


class _Actor:
    def check(self, payload: Payload) -> int:
        return checksum(payload)

    def echo(self, payload: Payload) -> Payload:
        return payload

    def pid(self) -> int:
        return os.getpid()


class RayActor:
    name = "ray"
    title = "Ray, actor call"

    def __init__(self, seats: Seats, sizes: Sequence[int] = ()) -> None:  # noqa: ARG002 - objects have any size
        self._folder = TemporaryDirectory(prefix="slabwire-ray-")
        quiet = {"include_dashboard": False, "log_to_driver": False, "logging_level": "error"}
        ray.init(num_cpus=2, _temp_dir=self._folder.name, **quiet)
        self._actor: Any = ray.remote(_Actor).remote()
        self.pid: int = ray.get(self._actor.pid.remote())
        os.sched_setaffinity(self.pid, {seats.echo})

    def begin(self, nbytes: int, trips: int, *, spinning: bool) -> None:
        """Nothing: it waits in its own way."""

    def prepare(self, payload: Payload) -> Payload:
        return payload

    def trip(self, payload: Payload) -> int:
        return int(ray.get(self._actor.check.remote(payload)))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        ray.shutdown()
        self._folder.cleanup()


class RayEcho(RayActor):
    """The payload comes back."""

    def trip(self, payload: Payload) -> int:
        return checksum(ray.get(self._actor.echo.remote(payload)))


class RayAwaited(RayActor):
    """The payload comes back to a task that awaits its reference."""

    async def _ask(self, payload: Payload) -> Payload:
        answer: Payload = await self._actor.echo.remote(payload)
        return answer

    def carry(self, count: int, in_flight: int) -> None:
        asyncio.run(carried(self._ask, count, in_flight))
