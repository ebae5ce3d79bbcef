"""Where connections come in. There is no way in without TLS."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from functools import partial

from .acceptor import Acceptor, StandIn
from .outcome import Outcome
from .terminator import Ended, Handshake, ProtocolFactory, Terminator


class Entrance:
    """Accepts connections and has them secured. Opened and closed on one running loop.

    `make_room` is asked with a connection in hand: None says that there is room. Else what it gives is awaited, and
    until that comes back, no other is taken from the kernel.
    `accepted` is called with each that was taken, `ended` whenever a handshake has ended, well or not.
    """

    def __init__(
        self,
        terminator: Terminator,
        protocol_factory: ProtocolFactory,
        make_room: Callable[[], Awaitable[None] | None],
        ended: Ended,
        accepted: Callable[[], object] = lambda: None,
    ) -> None:
        # With when they began (time.monotonic). A place is taken before it is known who has it.
        self.handshakes: dict[int, tuple[Handshake, float] | None] = {}
        self.failed_handshakes = 0
        self.port = 0
        self._terminator = terminator
        self._protocol_factory = protocol_factory
        self._make_room = make_room
        self._ended, self._accepted = ended, accepted
        self._number = 0  # of the last handshake
        self._doors: list[Acceptor | StandIn] = []

    def open(
        self,
        listeners: Sequence[socket.socket],
        others: Mapping[int, Sequence[socket.socket]] | None = None,
        absent: Callable[[], Collection[int]] = tuple,
    ) -> None:
        """Begins to accept what comes to these sockets, and takes them over; `port` tells from then on where they
        listen. `others` are those of other replicas, for while these are `absent`.
        """
        self.port = int(listeners[0].getsockname()[1])
        self._doors = [*(Acceptor(each, self._take) for each in listeners), StandIn(others or {}, absent, self._take)]
        for each in self._doors:
            each.open()

    def shut(self) -> None:
        """Takes no more from the kernel, where the rest waits for whoever else listens. Handshakes go on."""
        for each in self._doors:
            each.shut()

    @property
    def is_busy(self) -> bool:
        """Whether it accepts, or somebody has come in who is no connection yet."""
        return bool(self.handshakes) or any(each.is_busy for each in self._doors)

    async def close(self) -> None:
        """Accepts no more, and breaks off handshakes in progress."""
        for each in self._doors:
            await each.close()
        for begun in list(self.handshakes.values()):
            if begun is not None:
                begun[0].cancel()
        while self.handshakes:
            await asyncio.sleep(0)  # each ends within a few turns of the loop

    def slow_handshakes(self) -> Iterator[tuple[float, Callable[[], object]]]:
        """For each handshake in progress the seconds since it began, and how to break it off."""
        now = time.monotonic()
        for begun in self.handshakes.values():
            if begun is not None:
                yield now - begun[1], begun[0].cancel

    def _take(self, connection: socket.socket) -> Awaitable[None] | None:
        self._accepted()
        coming = self._make_room()
        if coming is not None:
            return self._secure_later(connection, coming)
        self._secure(connection)
        return None

    async def _secure_later(self, connection: socket.socket, coming: Awaitable[None]) -> None:
        try:
            await coming
        except BaseException:
            connection.close()
            raise
        self._secure(connection)

    def _secure(self, connection: socket.socket) -> None:
        self._number = number = self._number + 1
        self.handshakes[number] = None
        try:
            handshake = self._terminator.secure(connection, self._protocol_factory, partial(self._shook_hands, number))
        except OSError as error:  # the kernel watches no more descriptors
            connection.close()
            self._shook_hands(number, error)
            return
        if number in self.handshakes:  # else it has ended already
            self.handshakes[number] = handshake, time.monotonic()

    def _shook_hands(self, number: int, outcome: Outcome) -> None:
        del self.handshakes[number]
        if isinstance(outcome, OSError):
            self.failed_handshakes += 1
        self._ended(outcome)
