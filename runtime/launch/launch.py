"""What graphs in processes and in this process have in common: they begin and end with a `with` or an `async with`."""

from __future__ import annotations

import asyncio
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from types import TracebackType
from typing import Any, Generic, TypeVar

from ..clients.async_client import AsyncClient
from ..clients.client import Client


class Started(ABC):
    """A graph that this process has started. `client_type` makes its client."""

    client_type = Client

    def __init__(self, name: str) -> None:
        self.name = name
        self._client: Client | None = None
        self._client_lock = threading.Lock()

    @property
    def client(self) -> Client:
        """A client of this graph, made at first use and closed with the graph. In one process its calls have no timeout
        by default.
        """
        with self._client_lock:  # threads may share it, so they may ask for it at once
            if self._client is None:
                self._client = self.client_type(self.name)
            return self._client

    @abstractmethod
    def status(self) -> dict[str, Any]:
        """What `slabwire ps` and `top` show, as a dict; in one process what there is of it."""

    @abstractmethod
    def stop(self) -> int | None:
        """Drains and stops; returns the exit status of the supervisor where there is one."""

    @abstractmethod
    def kill(self) -> int | None:
        """Stops without draining."""

    def leave(self) -> None:
        """The end of its `with`."""
        self.stop()


R = TypeVar("R", bound=Started)


class AsyncStarted(Generic[R]):
    """What `async with` gives: the same graph with an asyncio client, and nothing that blocks the loop."""

    def __init__(self, running: R, client: AsyncClient) -> None:
        self.running = running
        self.name = running.name
        self.client = client

    async def status(self) -> dict[str, Any]:
        """What `slabwire ps` and `top` show, as a dict; in one process what there is of it."""
        return await asyncio.to_thread(self.running.status)

    async def stop(self) -> int | None:
        """Drains and stops; returns the exit status of the supervisor where there is one."""
        await self.client.withdraw()
        try:
            return await asyncio.to_thread(self.running.stop)
        finally:
            await self.client.close()


A = TypeVar("A", bound=AsyncStarted[Any])


class Launch(Generic[R, A]):
    """A graph about to run: `with` it, or `async with` it. Nothing is started before.

    `start` is called by `with`, `start_for_loop` by `async with`, in a thread.
    """

    def __init__(
        self,
        start: Callable[[], R],
        start_for_loop: Callable[[], R],
        async_running: Callable[[R, AsyncClient], A],
        async_client: Callable[[str], AsyncClient],
    ) -> None:
        self._start, self._start_for_loop = start, start_for_loop
        self._make_async_running, self._make_async_client = async_running, async_client

    def __enter__(self) -> R:
        self._running = self._start()
        return self._running

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._running.leave()

    async def __aenter__(self) -> A:
        running = await asyncio.to_thread(self._start_for_loop)
        try:
            client = await self._make_async_client(running.name).open()
        except BaseException:
            running.kill()
            raise
        self._async_running = self._make_async_running(running, client)
        return self._async_running

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._async_running.stop()
