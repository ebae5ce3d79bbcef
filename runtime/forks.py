"""What a forked child of this process must not keep: the connections by whose end others notice that it is gone."""

from __future__ import annotations

import os
import socket
from weakref import WeakSet

_ours: WeakSet[socket.socket] = WeakSet()


def keep_from_children(connection: socket.socket) -> socket.socket:
    """Closes it in every child that is forked from now on; returns it."""
    _ours.add(connection)
    return connection


def _let_go() -> None:
    for each in list(_ours):
        each.close()


os.register_at_fork(after_in_child=_let_go)
