"""What a forked child of this process gets: signals as a new process has them, and nothing of ours."""

from __future__ import annotations

import asyncio
import faulthandler
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterable
from typing import Any, Protocol
from weakref import WeakSet

from ..errors import Disconnected
from .lifeline import HUNG_SIGNAL


class Parting(Protocol):
    """What belongs to one process and has a copy in each of its forked children."""

    def part(self) -> None:
        """In a child, right after the fork and before any code of its own: makes of the copy what harms nobody."""
        ...


_connections: WeakSet[socket.socket] = WeakSet()
_parting: WeakSet[Parting] = WeakSet()
_handlers: dict[int, Any] = {}  # of this process, by signal
_masks: dict[int, Any] = {}  # by thread that forks


def keep_from_children(connection: socket.socket) -> socket.socket:
    """Closes it in every child that is forked from now on: others notice by its end that we are gone. Returns it."""
    _connections.add(connection)
    return connection


def forked_error(of: str, remedy: str) -> Disconnected:
    """What a forked child gets that uses what its parent has connected."""
    return Disconnected(f"this client of {of} belongs to the process that forked this one; connect here: {remedy}")


def part_in_children(each: Parting) -> None:
    """Calls its `part` in every child that is forked from now on."""
    _parting.add(each)


def own_signals(numbers: Iterable[int]) -> None:
    """The handlers that these signals have now are this process's alone: its children get the default ones."""
    _handlers.update((number, signal.getsignal(number)) for number in numbers)


def _before() -> None:
    """Holds signals back: one that came to a child before it had parted would be heard by its parent, too."""
    if _handlers:
        _masks[threading.get_ident()] = signal.pthread_sigmask(signal.SIG_BLOCK, {*_handlers, HUNG_SIGNAL})


def _after() -> None:
    mask = _masks.pop(threading.get_ident(), None)
    if mask is not None:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _in_child() -> None:
    for connection in list(_connections):
        connection.close()
    for each in list(_parting):
        each.part()
    if _handlers:
        _give_signals_back()
    _after()
    _masks.clear()


def _give_signals_back() -> None:
    signal.set_wakeup_fd(-1)  # else what the child hears is written to the parent's loop
    for number, ours in _handlers.items():
        if signal.getsignal(number) == ours:  # else an actor has set another
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    if signal.getsignal(HUNG_SIGNAL) == signal.SIG_DFL:
        faulthandler.unregister(HUNG_SIGNAL)
    _handlers.clear()
    if sys.version_info < (3, 12):  # later ones do this themselves
        _forget_loop()


def _forget_loop() -> None:
    policy = asyncio.get_event_loop_policy()
    if type(policy) is asyncio.DefaultEventLoopPolicy:
        asyncio.set_event_loop_policy(None)  # the next one makes a loop when it is asked for one
    else:
        policy.set_event_loop(None)


os.register_at_fork(before=_before, after_in_parent=_after, after_in_child=_in_child)
