"""Where connections come in. There is no way in without TLS."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Iterator, Sequence

from .outcome import Outcome
from .terminator import Ended, Handshake, ProtocolFactory, Terminator

logger = logging.getLogger("slabwire")

# An accept that failed, for want of descriptors or memory, is tried again after this time.
ACCEPT_AGAIN_S = 1.0
# Of one listener in one turn of the loop: a millisecond.
ACCEPTS_A_TURN = 16


class Entrance:
    """Accepts connections and has them secured. Opened and closed on one running loop.

    `make_room` is awaited with a connection in hand: until it comes back, no other is taken from the kernel.
    `accepted` is called with each that was taken, `ended` whenever a handshake has ended, well or not.
    """

    def __init__(
        self,
        terminator: Terminator,
        protocol_factory: ProtocolFactory,
        make_room: Callable[[], Awaitable[None]],
        ended: Ended,
        accepted: Callable[[], object] = lambda: None,
    ) -> None:
        self.handshakes: dict[int, tuple[Handshake, float]] = {}  # with when they began, on the loop's clock
        self.failed_handshakes = 0
        self.port = 0
        self._terminator = terminator
        self._protocol_factory = protocol_factory
        self._make_room = make_room
        self._ended, self._accepted = ended, accepted
        self._number = 0  # of the last handshake
        self._listeners: list[socket.socket] = []
        self._accepting: list[asyncio.Task[None]] = []
        self._waiting: set[asyncio.Future[None]] = set()  # for something to come to a listener
        self._is_shut = False

    def open(self, listeners: Sequence[socket.socket]) -> None:
        """Begins to accept what comes to these sockets, and takes them over; `port` tells from then on where they
        listen.
        """
        self._listeners = list(listeners)
        self.port = int(self._listeners[0].getsockname()[1])
        self._accepting = [asyncio.create_task(self._accept(each)) for each in self._listeners]

    def shut(self) -> None:
        """Takes no more from the kernel, where the rest waits for whoever else listens. Handshakes go on."""
        self._is_shut = True
        for each in self._waiting:
            _wake(each)

    @property
    def is_busy(self) -> bool:
        """Whether somebody has come in who is no connection yet."""
        return bool(self.handshakes) or not all(each.done() for each in self._accepting)

    async def close(self) -> None:
        """Accepts no more, and breaks off handshakes in progress."""
        self.shut()
        for task in self._accepting:
            task.cancel()
        await asyncio.gather(*self._accepting, return_exceptions=True)
        for handshake, _ in list(self.handshakes.values()):
            handshake.cancel()
        while self.handshakes:
            await asyncio.sleep(0)  # each ends within a few turns of the loop
        for listener in self._listeners:
            listener.close()

    def slow_handshakes(self) -> Iterator[tuple[float, Callable[[], object]]]:
        """For each handshake in progress the seconds since it began, and how to break it off."""
        now = asyncio.get_running_loop().time()
        for handshake, began in self.handshakes.values():
            yield now - began, handshake.cancel

    async def _accept(self, listener: socket.socket) -> None:
        while not self._is_shut:
            for _ in range(ACCEPTS_A_TURN):
                connection = await self._next(listener)
                if connection is None:
                    return
                self._accepted()
                try:
                    await self._make_room()
                except BaseException:
                    connection.close()
                    raise
                self._secure(connection)
            await asyncio.sleep(0)

    async def _next(self, listener: socket.socket) -> socket.socket | None:
        """The next connection, however long it takes: what is wrong with one, or with the machine, ends no service.
        None once the entrance is shut.

        Not by asyncio's sock_accept: one that is cancelled may have taken a connection, which is lost then.
        """
        while not self._is_shut:
            try:
                return accepted_by(listener)
            except BlockingIOError:
                await self._comes_to(listener)
            except ConnectionError:
                continue  # gone before we came to it
            except OSError as error:
                logger.error("no connection can be accepted: %s", error.strerror)
                await asyncio.sleep(ACCEPT_AGAIN_S)
        return None

    async def _comes_to(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        came: asyncio.Future[None] = loop.create_future()
        self._waiting.add(came)
        loop.add_reader(listener, _wake, came)
        try:
            await came
        finally:
            loop.remove_reader(listener)
            self._waiting.discard(came)

    def _secure(self, connection: socket.socket) -> None:
        self._number = number = self._number + 1
        handshake = self._terminator.secure(
            connection, self._protocol_factory, lambda outcome: self._shook_hands(number, outcome)
        )
        self.handshakes[number] = handshake, asyncio.get_running_loop().time()

    def _shook_hands(self, number: int, outcome: Outcome) -> None:
        del self.handshakes[number]
        if isinstance(outcome, OSError):
            self.failed_handshakes += 1
        self._ended(outcome)


def _wake(waiting: asyncio.Future[None]) -> None:
    if not waiting.done():
        waiting.set_result(None)


def accepted_by(listener: socket.socket) -> socket.socket:
    """A connection that waits there, non-blocking. Raises BlockingIOError where none does."""
    connection, _ = listener.accept()
    connection.setblocking(False)
    return connection
