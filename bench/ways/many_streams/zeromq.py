"""ZeroMQ: DEALER to DEALER over an ipc address, a message an item, its stream's number before it."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable

import zmq

from .item import mark_of
from .pacing import Pacing
from .reading import Reading
from .way import PartyWay

_NUMBER = struct.Struct("<I")
_BEGIN, _CANCEL = b"+", b"-"


class _Dealer:
    """One end of the pair in an asyncio loop: it holds what the other has not taken, however much that is."""

    def __init__(self, on_message: Callable[[bytes], None]) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.socket = self._context.socket(zmq.DEALER)
        self.socket.sndhwm = self.socket.rcvhwm = self.socket.linger = 0
        self._on_message = on_message
        asyncio.get_running_loop().add_reader(self.socket, self.take)

    def take(self) -> None:
        """All that is there. To be called after sending, too: the descriptor tells of a message once."""
        receive, on_message = self.socket.recv, self._on_message
        try:
            while True:
                on_message(receive(zmq.NOBLOCK))
        except zmq.Again:
            return


class Source(Pacing):
    """Sends to whoever has begun a stream."""

    def __init__(self, pace: float, address: str) -> None:
        super().__init__()
        self.pace = pace
        self._dealer = _Dealer(self._heard)
        self._dealer.socket.bind(f"ipc://@{address}")
        self._open: dict[bytes, str] = {}

    def ready(self) -> None:
        """Answers once it is bound."""

    def _heard(self, message: bytes) -> None:
        number = message[1:]
        if message[:1] == _BEGIN:
            self._open[number] = mark_of(*_NUMBER.unpack(number))
        else:
            del self._open[number]

    def _step(self, stamp: str) -> None:
        send = self._dealer.socket.send
        for number, mark in self._open.items():
            send(number + (stamp + mark).encode(), zmq.NOBLOCK)
        self._dealer.take()

    def _open_streams(self) -> int:
        self._dealer.take()
        return len(self._open)


class Reader(Reading):
    """Takes all that is there, and hands each item to its stream."""

    def __init__(self, address: str) -> None:
        self._dealer = _Dealer(self._came)
        self._dealer.socket.connect(f"ipc://@{address}")

    def ready(self) -> None:
        """Answers once it may connect."""

    def _came(self, message: bytes) -> None:
        self.writer.outlets[_NUMBER.unpack_from(message)[0]].put([message[_NUMBER.size :].decode()])

    def begin(self) -> None:
        """All streams."""
        self._say(_BEGIN)

    async def _cancel(self) -> None:
        self._say(_CANCEL)

    def _say(self, what: bytes) -> None:
        for number in range(len(self.writer.outlets)):
            self._dealer.socket.send(what + _NUMBER.pack(number), zmq.NOBLOCK)
        self._dealer.take()

    def errors(self) -> int:
        """Nobody would say."""
        return 0


class ZeroMq(PartyWay):
    name = "zeromq"
    title = "ZeroMQ, DEALER, ipc"
    source_work = "zeromq:Source"
    reader_work = "zeromq:Reader"
    pauses = False
