"""What lies behind a client on this host: its lanes, its pool, its calls in flight."""

from __future__ import annotations

import slabwire
from slabwire.runtime.clients.async_connection import AsyncLocalConnection
from slabwire.runtime.clients.local import LocalConnection
from slabwire.runtime.clients.shared_connection import SharedConnection


def lanes_of(client: slabwire.Client | slabwire.AsyncClient) -> LocalConnection:
    """The connection that a client calls over now."""
    connection = client._connection
    assert isinstance(connection, SharedConnection | AsyncLocalConnection)
    return connection.local
