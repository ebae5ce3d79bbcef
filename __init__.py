"""Slabwire: actor processes that exchange tensors through shared memory. This module is the public face."""

from __future__ import annotations

from .runtime.actor import Actor, Context, Output, batched, private, resumable
from .runtime.async_client import AsyncClient, connect_async
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
from .runtime.running import Running

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
    "HandlerError",
    "Interrupted",
    "LoadError",
    "MessageError",
    "OutOfMemory",
    "Output",
    "Overloaded",
    "ProtocolError",
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
