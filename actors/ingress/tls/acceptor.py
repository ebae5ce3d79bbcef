"""Takes connections from a listening socket."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence

logger = logging.getLogger("slabwire")

# An accept that failed, for want of descriptors or memory, is tried again after this time.
ACCEPT_AGAIN_S = 1.0
# Of one listener in one turn of the loop: a millisecond.
ACCEPTS_A_TURN = 16
# How soon somebody accepts in the place of a replica that has gone. A look costs some 50 µs for each replica.
LOOK_EVERY_S = 0.2

Take = Callable[[socket.socket], Awaitable[None]]


class Acceptor:
    """Of one listening socket, non-blocking, which others may accept from as well. On one loop.

    `take` is awaited with each connection: until it comes back, no other is taken from the kernel. The connection is
    its own from then on.
    """

    def __init__(self, listener: socket.socket, take: Take) -> None:
        self._listener, self._take = listener, take
        self._is_shut = True
        self._task: asyncio.Task[None] | None = None
        self._waiting: asyncio.Future[None] | None = None  # for something to come

    def open(self) -> None:
        """Begins, or goes on after it was shut."""
        self._is_shut = False
        if not self.is_busy:
            self._task = asyncio.create_task(self._accept())

    def shut(self) -> None:
        """Takes no more; one that was taken already is still brought in."""
        self._is_shut = True
        _wake(self._waiting)

    @property
    def is_busy(self) -> bool:
        """Whether it accepts, or still brings somebody in."""
        return self._task is not None and not self._task.done()

    async def close(self) -> None:
        """Whoever is not in by now is turned away. Others that have the socket accept on."""
        self.shut()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._listener.close()

    async def _accept(self) -> None:
        while not self._is_shut:
            for _ in range(ACCEPTS_A_TURN):
                connection = await self._next()
                if connection is None:
                    return
                await self._take(connection)
            await asyncio.sleep(0)

    async def _next(self) -> socket.socket | None:
        """The next connection, however long it takes: what is wrong with one, or with the machine, ends no service.
        None once it is shut.

        Not by asyncio's sock_accept: one that is cancelled may have taken a connection, which is lost then.
        """
        while not self._is_shut:
            try:
                return accepted_by(self._listener)
            except BlockingIOError:
                await self._comes()
            except ConnectionError:
                continue  # gone before we came to it
            except OSError as error:
                logger.error("no connection can be accepted: %s", error.strerror)
                await asyncio.sleep(ACCEPT_AGAIN_S)
        return None

    async def _comes(self) -> None:
        loop = asyncio.get_running_loop()
        self._waiting = loop.create_future()
        loop.add_reader(self._listener, _wake, self._waiting)
        try:
            await self._waiting
        finally:
            loop.remove_reader(self._listener)


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
    connection, _ = listener.accept()
    connection.setblocking(False)
    return connection


def _wake(waiting: asyncio.Future[None] | None) -> None:
    if waiting is not None and not waiting.done():
        waiting.set_result(None)
