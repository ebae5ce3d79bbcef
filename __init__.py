"""Slabwire: actor processes that exchange tensors through shared memory. This module is the public face.

Names are imported when they are first used, so that tools which need little start fast.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .runtime.actor import Actor, Context, Output, batched, private, resumable
    from .runtime.async_client import AsyncClient, connect_async
    from .runtime.async_remote import AsyncRemoteClient
    from .runtime.client import Client, connect
    from .runtime.errors import (
        Cancelled,
        DeadLetter,
        DeadlineExceeded,
        Disconnected,
        Draining,
        EdgeFull,
        GraphError,
        HandlerError,
        Interrupted,
        LoadError,
        MessageError,
        OutOfMemory,
        Overloaded,
        ProtocolError,
        SlabwireError,
        StartError,
        UnknownPort,
    )
    from .runtime.graph import Graph
    from .runtime.remote import RemoteClient
    from .runtime.retry import Retry
    from .runtime.running import Running

__version__ = "0.1.0"

__all__ = [
    "Actor",
    "AsyncClient",
    "AsyncRemoteClient",
    "Cancelled",
    "Client",
    "Context",
    "DeadLetter",
    "DeadlineExceeded",
    "Disconnected",
    "Draining",
    "EdgeFull",
    "Graph",
    "GraphError",
    "HandlerError",
    "Interrupted",
    "LoadError",
    "MessageError",
    "OutOfMemory",
    "Output",
    "Overloaded",
    "ProtocolError",
    "RemoteClient",
    "Retry",
    "Running",
    "SlabwireError",
    "StartError",
    "UnknownPort",
    "batched",
    "connect",
    "connect_async",
    "private",
    "resumable",
]

_HOMES = {
    "Actor": "runtime.actor",
    "AsyncClient": "runtime.async_client",
    "AsyncRemoteClient": "runtime.async_remote",
    "Cancelled": "runtime.errors",
    "Client": "runtime.client",
    "Context": "runtime.actor",
    "DeadLetter": "runtime.errors",
    "DeadlineExceeded": "runtime.errors",
    "Disconnected": "runtime.errors",
    "Draining": "runtime.errors",
    "EdgeFull": "runtime.errors",
    "Graph": "runtime.graph",
    "GraphError": "runtime.errors",
    "HandlerError": "runtime.errors",
    "Interrupted": "runtime.errors",
    "LoadError": "runtime.errors",
    "MessageError": "runtime.errors",
    "OutOfMemory": "runtime.errors",
    "Output": "runtime.actor",
    "Overloaded": "runtime.errors",
    "ProtocolError": "runtime.errors",
    "RemoteClient": "runtime.remote",
    "Retry": "runtime.retry",
    "Running": "runtime.running",
    "SlabwireError": "runtime.errors",
    "StartError": "runtime.errors",
    "UnknownPort": "runtime.errors",
    "batched": "runtime.actor",
    "connect": "runtime.client",
    "connect_async": "runtime.async_client",
    "private": "runtime.actor",
    "resumable": "runtime.actor",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
