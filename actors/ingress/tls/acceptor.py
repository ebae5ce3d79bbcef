"""Takes connections from a listening socket."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Any

logger = logging.getLogger("slabwire")

# An accept that failed, for want of descriptors or memory, is tried again after this time.
ACCEPT_AGAIN_S = 1.0
# How soon somebody accepts in the place of a replica that has gone. A look costs some 50 µs for each replica.
LOOK_EVERY_S = 0.2
# So long the kernel keeps a connection to itself on which nothing has come, as in TLS it is the client who begins: each
# is a wake-up less.
SILENT_FOR_S = 1

_STREAM, _TCP = int(socket.SOCK_STREAM), int(socket.IPPROTO_TCP)

Take = Callable[[socket.socket], Awaitable[None] | None]


class Acceptor:
    """Of one listening socket, non-blocking, which others may accept from as well: one connection in a turn of the
    loop. On one loop.

    `take` is called with each. What it gives is awaited, if it is not None: until it comes back, no other is taken from
    the kernel. The connection is its own from then on.
    """

    def __init__(self, listener: socket.socket, take: Take) -> None:
        self._listener, self._take = listener, take
        with contextlib.suppress(OSError):  # of other families
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, SILENT_FOR_S)
        self._is_shut = True
        self._is_watching = False
        self._bringing_in: asyncio.Task[None] | None = None
        self._again: asyncio.TimerHandle | None = None  # after an accept that failed

    def open(self) -> None:
        """Begins, or goes on after it was shut."""
        self._is_shut = False
        if not self.is_busy:
            self._watch()

    def shut(self) -> None:
        """Takes no more; one that was taken already is still brought in."""
        self._is_shut = True
        self._stop_watching()
        if self._again is not None:
            self._again.cancel()
            self._again = None

    @property
    def is_busy(self) -> bool:
        """Whether it accepts, or still brings somebody in."""
        is_bringing = self._bringing_in is not None and not self._bringing_in.done()
        return self._is_watching or is_bringing or self._again is not None

    async def close(self) -> None:
        """Whoever is not in by now is turned away. Others that have the socket accept on."""
        self.shut()
        if self._bringing_in is not None:
            await asyncio.sleep(0)  # one that is cancelled before it has begun could not turn anybody away
            self._bringing_in.cancel()
            await asyncio.gather(self._bringing_in, return_exceptions=True)
        self._listener.close()

    def _accept(self) -> None:
        """What is wrong with one connection, or with the machine, ends no service."""
        try:
            connection = accepted_by(self._listener)
        except (BlockingIOError, ConnectionError):
            return  # another process has it, or it is gone
        except OSError as error:
            logger.error("no connection can be accepted: %s", error.strerror)
            self._stop_watching()
            self._again = asyncio.get_running_loop().call_later(ACCEPT_AGAIN_S, self._go_on)
            return
        coming = self._take(connection)
        if coming is not None:
            self._stop_watching()
            self._bringing_in = asyncio.create_task(self._bring_in(coming))

    async def _bring_in(self, coming: Awaitable[None]) -> None:
        try:
            await coming
        finally:
            self._go_on()

    def _go_on(self) -> None:
        self._again = None
        if not self._is_shut:
            self._watch()

    def _watch(self) -> None:
        self._is_watching = True
        asyncio.get_running_loop().add_reader(self._listener.fileno(), self._accept)

    def _stop_watching(self) -> None:
        if self._is_watching:
            self._is_watching = False
            asyncio.get_running_loop().remove_reader(self._listener.fileno())


class StandIn:
    """Accepts in the place of other replicas while they are `absent`, so that who connects to one need not wait until
    it is there again. `others` has their sockets, by replica.

    It looks again and again, for a process that was killed tells nobody.
    """

    def __init__(
        self, others: Mapping[int, Sequence[socket.socket]], absent: Callable[[], Collection[int]], take: Take
    ) -> None:
        self._acceptors = {replica: [Acceptor(each, take) for each in sockets] for replica, sockets in others.items()}
        self._absent = absent
        self._looking: asyncio.Task[None] | None = None

    def open(self) -> None:
        """Begins to look; nothing where there are no others."""
        if self._acceptors:
            self._looking = asyncio.create_task(self._look())

    def shut(self) -> None:
        """As `Acceptor.shut`."""
        if self._looking is not None:
            self._looking.cancel()
        for each in self._all():
            each.shut()

    @property
    def is_busy(self) -> bool:
        """As `Acceptor.is_busy`."""
        return any(each.is_busy for each in self._all())

    async def close(self) -> None:
        """As `Acceptor.close`."""
        self.shut()
        for each in self._all():
            await each.close()

    async def _look(self) -> None:
        while True:
            absent = self._absent()
            for replica, acceptors in self._acceptors.items():
                for each in acceptors:
                    if replica in absent:
                        each.open()
                    else:
                        each.shut()
            await asyncio.sleep(LOOK_EVERY_S)

    def _all(self) -> list[Acceptor]:
        return [each for acceptors in self._acceptors.values() for each in acceptors]


def accepted_by(listener: socket.socket) -> socket.socket:
    """A connection that waits there, non-blocking. Raises BlockingIOError where none does."""
    # What accept() and socket.socket add in Python takes longer than the kernel.
    descriptor, _ = listener._accept()  # type: ignore[attr-defined]
    connection: Any = socket.SocketType(-1, _STREAM, _TCP, descriptor)  # the family is the descriptor's
    connection.setblocking(False)
    return connection  # type: ignore[no-any-return]
