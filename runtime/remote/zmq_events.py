"""What a ZeroMQ socket is ready for. Its descriptor tells of each change once only: ask here before sleeping on it."""

from __future__ import annotations

from typing import Any

import zmq


def can_read(socket: zmq.Socket[Any]) -> bool:
    """Whether a message has come."""
    return bool(int(socket.get(zmq.EVENTS)) & zmq.POLLIN)


def can_write(socket: zmq.Socket[Any]) -> bool:
    """Whether there is somebody to send to, with room."""
    return bool(int(socket.get(zmq.EVENTS)) & zmq.POLLOUT)


def descriptor_of(socket: zmq.Socket[Any]) -> int:
    """What to wait on for either."""
    return int(socket.get(zmq.FD))
