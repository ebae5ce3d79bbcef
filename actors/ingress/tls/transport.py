"""An asyncio transport over TLS on the connection's own descriptor: what asyncio's protocols expect, and no buffers."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from asyncio.trsock import TransportSocket
from collections.abc import Callable
from typing import Any, cast

from .deadlines import Deadlines
from .libssl import RECORD_NBYTES
from .secured import Facts, Secured
from .states import Event, State
from .watcher import READ, WRITE, Watcher

# What one connection may read or write in one turn of the loop while others wait: 128 KiB, a quarter of a millisecond.
RECORDS_A_TURN = 8
# asyncio's own.
_HIGH_WATER_NBYTES = 64 * 1024


class TLSTransport(asyncio.Transport):
    """Made by a terminator when a handshake is done; `start` connects the protocol. For the loop's thread alone.

    What is written goes at once, one record a call, as long as nothing is queued; what is queued leaves in full ones.
    `close` sends what is queued, then the good-bye, and waits for the peer's, all within the time of `closings`; what
    still comes in meanwhile is read and dropped, for a reset would take from the peer what it has not read yet.
    """

    __slots__ = (
        "_closings",
        "_connection",
        "_descriptor",
        "_events",
        "_high",
        "_loop",
        "_low",
        "_protocol",
        "_queue",
        "_reading",
        "_secured",
        "_watcher",
        "_writing_paused",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        secured: Secured,
        connection: socket.socket,
        protocol: asyncio.Protocol,
        closings: Deadlines,
        watcher: Watcher,
    ) -> None:
        # Nothing of asyncio's own is kept: it would be a dict per connection.
        self._loop, self._secured, self._connection = loop, secured, connection
        self._descriptor = connection.fileno()
        self._protocol = protocol
        self._closings, self._watcher = closings, watcher
        self._queue = bytearray()
        self._high, self._low = _HIGH_WATER_NBYTES, _HIGH_WATER_NBYTES // 4
        self._reading = True
        self._events = READ  # that are watched for
        self._writing_paused = False

    def start(self) -> None:
        """Connects the protocol, and begins to read unless it says otherwise. Its descriptor is watched already."""
        self._watcher.hand_over(self._descriptor, self)
        self._call(self._protocol.connection_made, self)
        if self._events & READ:
            self._readable()  # what followed on the handshake's end is often here already

    # -- what asyncio asks for ---------------------------------------------------------------------------------------

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Answers to "socket", "peername", "sockname", "sslcontext" (True) and "ssl_object" (`Facts`)."""
        if name == "sslcontext":
            return True
        if name == "socket":
            return TransportSocket(self._connection)
        if name == "ssl_object":
            return Facts(self._secured)
        if name in ("peername", "sockname"):
            with contextlib.suppress(OSError):
                return self._connection.getpeername() if name == "peername" else self._connection.getsockname()
        return default

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = cast(asyncio.Protocol, protocol)

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._protocol

    def is_closing(self) -> bool:
        return self._secured.state is not State.OPEN

    def can_write_eof(self) -> bool:
        return False

    # -- reading -----------------------------------------------------------------------------------------------------

    def is_reading(self) -> bool:
        return self._reading and not self.is_closing()

    def pause_reading(self) -> None:
        if self.is_reading():
            self._reading = False
            self._watch(self._events & ~READ)

    def resume_reading(self) -> None:
        if not self._reading and not self.is_closing():
            self._reading = True
            self._watch(self._events | READ)

    def _watch(self, events: int) -> None:
        if events != self._events:
            self._watcher.change(self._descriptor, self._events, events)
            self._events = events

    def ready(self, events: int) -> None:
        """As Watched says."""
        if events & ~WRITE and self._events & READ:
            self._readable()
        if events & ~READ and self._events & WRITE:
            self._writable()

    def _readable(self) -> None:
        """Hands over some records. What is left makes the loop call again: it is in the kernel, and nowhere else."""
        secured = self._secured
        try:
            for _ in range(RECORDS_A_TURN):
                data = secured.read()
                if data is None:
                    if secured.wants_write:
                        self._watch_for_room()
                    return
                if not data:
                    self._peer_has_left()
                    return
                if secured.state is State.OPEN:
                    try:
                        self._protocol.data_received(data)
                    except Exception as error:
                        self._blame(self._protocol.data_received, error)
                if not self._events & READ:
                    return
                if len(data) < RECORD_NBYTES:
                    return  # mostly it was the last; if not, the loop calls again
        except OSError as error:
            # Many clients do not answer a good-bye: that is an end like any other.
            self._lose(None if secured.state is State.CLOSING else error)

    def _peer_has_left(self) -> None:
        self._watch(self._events & ~READ)  # an end is there to be read for ever
        was_open = self._secured.state is State.OPEN
        if self._secured.meet(Event.CLOSED_THERE) is State.CLOSED:
            self._end(None)
            return
        self._closings.add(self)
        if was_open:
            self._call(self._protocol.eof_received)
        self._go_on()

    # -- writing -----------------------------------------------------------------------------------------------------

    def write(self, data: bytes | bytearray | memoryview) -> None:
        secured = self._secured
        is_next = type(data) is bytes and not self._events & WRITE  # nothing waits before it
        if secured.ready and is_next and 0 < (nbytes := len(data)) <= RECORD_NBYTES:
            # `Secured.write`, without what a failure takes: only then one asks libssl's queue of errors, in which
            # others of this thread may have left some. To empty it before each write costs more than to write once
            # more after one of the few that fail.
            sent = secured.ssl_write(secured.ready, data, nbytes)
            if sent == nbytes:
                return
            if sent > 0:
                data = data[sent:]  # this client takes short records alone (RFC 6066, section 4)
        elif not isinstance(data, bytes | bytearray | memoryview):
            raise TypeError(f"a transport writes bytes, and not {type(data).__name__}")
        if data and secured.ready:
            self._write(bytes(data))

    def _write(self, data: bytes) -> None:
        """Sends what it can, and queues the rest."""
        if self._queue:
            self._queue += data
        else:
            try:
                sent = self._secured.write(data)
                if sent == len(data):
                    return
                self._queue += memoryview(data)[sent:]
                self._flush(RECORDS_A_TURN - 1 if sent else 0)
            except OSError as error:
                self._lose(error)
                return
            if self._queue:
                self._watch_for_room()
        self._heed_high_water()

    def _flush(self, records: int) -> None:
        """Sends so many records of what is queued. Raises OSError."""
        queue = self._queue
        while queue and records:
            nbytes = self._secured.write(bytes(memoryview(queue)[:RECORD_NBYTES]))
            if not nbytes:
                return
            del queue[:nbytes]
            records -= 1

    def _watch_for_room(self) -> None:
        self._watch(self._events | WRITE)

    def _writable(self) -> None:
        try:
            self._flush(RECORDS_A_TURN)
        except OSError as error:
            self._lose(error)
            return
        if not self._queue:
            self._watch(self._events & ~WRITE)
        if self._writing_paused and len(self._queue) <= self._low:
            self._writing_paused = False
            self._call(self._protocol.resume_writing)
        self._go_on()

    # -- flow control ------------------------------------------------------------------------------------------------

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        if high is None:
            high = _HIGH_WATER_NBYTES if low is None else 4 * low
        if low is None:
            low = high // 4
        if not high >= low >= 0:
            raise ValueError(f"a write buffer needs high >= low >= 0, and was given high={high!r}, low={low!r}")
        self._high, self._low = high, low
        self._heed_high_water()

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """Low, and high."""
        return self._low, self._high

    def get_write_buffer_size(self) -> int:
        return len(self._queue)

    def _heed_high_water(self) -> None:
        if len(self._queue) > self._high and not self._writing_paused:
            self._writing_paused = True
            self._call(self._protocol.pause_writing)

    # -- the end -----------------------------------------------------------------------------------------------------

    def close(self) -> None:
        if self._secured.state is not State.OPEN:
            return
        self._secured.meet(Event.CLOSED_HERE)
        self._closings.add(self)
        self._watch(self._events | READ)
        self._go_on()

    def abort(self) -> None:
        self._lose(None)

    def overdue(self) -> None:
        """The peer does not take what is queued, or does not answer our good-bye."""
        self._lose(TimeoutError("the connection was not closed in time"))

    def _go_on(self) -> None:
        """Takes the next step of an end that has begun: what is queued, then the good-bye."""
        if self._queue or not self.is_closing():
            return
        state = self._secured.state
        if state is State.DRAINING or state is State.LEFT:
            state = self._secured.meet(Event.DRAINED)
            if state is State.CLOSED:
                with contextlib.suppress(OSError):
                    self._secured.say_goodbye()
                self._end(None)
                return
        if state is State.CLOSING:
            try:
                if self._secured.say_goodbye():
                    # Some clients hear no good-bye, and wait for TCP's end.
                    self._connection.shutdown(socket.SHUT_WR)
                else:
                    self._watch_for_room()
            except OSError as error:
                self._lose(error)

    def _lose(self, error: Exception | None) -> None:
        if self._secured.state is not State.CLOSED:
            self._secured.meet(Event.LOST)
            self._end(error)

    def _end(self, error: Exception | None) -> None:
        self._closings.discard(self)
        self._watcher.remove(self._descriptor, self._events)
        self._events = 0
        self._queue.clear()
        self._watcher.soon(self._let_go, error)

    def _let_go(self, error: Exception | None) -> None:
        """From within no call of libssl, nor of the protocol."""
        try:
            self._protocol.connection_lost(error)
        finally:
            self._secured.free()
            self._connection.close()

    def _call(self, method: Callable[..., object], *arguments: object) -> None:
        """Calls the protocol. If it raises, the loop is told, and the connection is lost."""
        try:
            method(*arguments)
        except Exception as error:
            self._blame(method, error)

    def _blame(self, method: Callable[..., object], error: Exception) -> None:
        context = {"message": f"{method} failed", "exception": error, "transport": self, "protocol": self._protocol}
        self._loop.call_exception_handler(context)
        self._lose(error)
