"""Clients of graphs that run: on this host, or wherever an address leads."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..clients.async_client import AsyncClient
from ..clients.client import Client
from ..clients.retry import Retry
from ..host.variables import warn_of_unknown

if TYPE_CHECKING:
    from ..remote.async_remote_client import AsyncRemoteClient
    from ..remote.remote_client import RemoteClient


def connect(
    where: str, *, keys: Path | str | None = None, retries: int | Retry = 0, wait_s: float | None = None
) -> Client | RemoteClient:
    """A client of the graph that runs under that name on this host, or at `ipc://...` or `tcp://host:port`.

    `keys` is a folder that `slabwire keys add` has made, needed for other hosts. `retries` is the default of its calls.
    A graph that does not run yet is awaited for `wait_s` (on this host 0, else 5 s). Raises Disconnected if nothing
    answers there.
    """
    warn_of_unknown()
    if "://" in where:
        from ..remote.remote_client import RemoteClient

        return RemoteClient(where, keys, retries=retries, wait_s=wait_s)
    return Client(where, retries=retries, wait_s=wait_s or 0.0)


def connect_async(
    where: str, *, keys: Path | str | None = None, retries: int | Retry = 0, wait_s: float | None = None
) -> AsyncClient | AsyncRemoteClient:
    """As `connect`, for `async with`."""
    warn_of_unknown()
    if "://" in where:
        from ..remote.async_remote_client import AsyncRemoteClient

        return AsyncRemoteClient(where, keys, retries=retries, wait_s=wait_s)
    return AsyncClient(where, retries=retries, wait_s=wait_s or 0.0)
