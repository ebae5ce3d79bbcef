"""Clients of graphs that run: on this host, or wherever an address leads."""

from __future__ import annotations

from pathlib import Path

from ..clients.async_client import AsyncClient
from ..clients.client import Client
from ..clients.retry import Retry
from ..host.variables import warn_of_unknown


def connect(
    where: str, *, keys: Path | str | None = None, retries: int | Retry = 0, wait_s: float | None = None
) -> Client:
    """A client of the graph that runs under that name on this host, or at `ipc://...` or `tcp://host:port`.

    `keys` is a folder that `slabwire keys add` has made, needed for other hosts. `retries` is the default of its calls.
    A graph that does not run yet is awaited for `wait_s` (on this host 0, else 5 s). Raises Disconnected if nothing
    answers there, StartError for keys that cannot be used.
    """
    warn_of_unknown()
    return Client(where, keys, retries=retries, wait_s=wait_s)


def connect_async(
    where: str, *, keys: Path | str | None = None, retries: int | Retry = 0, wait_s: float | None = None
) -> AsyncClient:
    """As `connect`, for `async with`."""
    warn_of_unknown()
    return AsyncClient(where, keys, retries=retries, wait_s=wait_s)
