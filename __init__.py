"""Slabwire: actor processes that exchange tensors through shared memory. This module is the public face.

Names are imported when they are first used, so that tools which need little start fast.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .runtime.actor.actor import Actor, Output, batched, private, resumable
    from .runtime.actor.context import Context
    from .runtime.actor.delegation import Report
    from .runtime.actor.kept import Kept
    from .runtime.actor.reply_stream import ReplyStream
    from .runtime.actor.stream_group import IncomingStream, StreamGroup
    from .runtime.clients.async_client import AsyncClient
    from .runtime.clients.client import Client
    from .runtime.clients.retry import Retry
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
        TooManyHops,
        UnknownPort,
    )
    from .runtime.launch.connect import connect, connect_async
    from .runtime.launch.graph import Graph
    from .runtime.launch.running import Running
    from .shm.layout import Group, Layout, Word

__version__ = "0.1.0"

__all__ = [
    "Actor",
    "AsyncClient",
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
    "Group",
    "HandlerError",
    "IncomingStream",
    "Interrupted",
    "Kept",
    "Layout",
    "LoadError",
    "MessageError",
    "OutOfMemory",
    "Output",
    "Overloaded",
    "ProtocolError",
    "ReplyStream",
    "Report",
    "Retry",
    "Running",
    "SlabwireError",
    "StartError",
    "StreamGroup",
    "TooManyHops",
    "UnknownPort",
    "Word",
    "batched",
    "connect",
    "connect_async",
    "private",
    "resumable",
]

_HOMES = {
    "Actor": "runtime.actor.actor",
    "AsyncClient": "runtime.clients.async_client",
    "Cancelled": "runtime.errors",
    "Client": "runtime.clients.client",
    "Context": "runtime.actor.context",
    "DeadLetter": "runtime.errors",
    "DeadlineExceeded": "runtime.errors",
    "Disconnected": "runtime.errors",
    "Draining": "runtime.errors",
    "EdgeFull": "runtime.errors",
    "Graph": "runtime.launch.graph",
    "GraphError": "runtime.errors",
    "Group": "shm.layout",
    "HandlerError": "runtime.errors",
    "IncomingStream": "runtime.actor.stream_group",
    "Interrupted": "runtime.errors",
    "Kept": "runtime.actor.kept",
    "Layout": "shm.layout",
    "LoadError": "runtime.errors",
    "MessageError": "runtime.errors",
    "OutOfMemory": "runtime.errors",
    "Output": "runtime.actor.actor",
    "Overloaded": "runtime.errors",
    "ProtocolError": "runtime.errors",
    "ReplyStream": "runtime.actor.reply_stream",
    "Report": "runtime.actor.delegation",
    "Retry": "runtime.clients.retry",
    "Running": "runtime.launch.running",
    "SlabwireError": "runtime.errors",
    "StartError": "runtime.errors",
    "StreamGroup": "runtime.actor.stream_group",
    "TooManyHops": "runtime.errors",
    "UnknownPort": "runtime.errors",
    "Word": "shm.layout",
    "batched": "runtime.actor.actor",
    "connect": "runtime.launch.connect",
    "connect_async": "runtime.launch.connect",
    "private": "runtime.actor.actor",
    "resumable": "runtime.actor.actor",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
