"""The socket of a remote client: moves messages between ZeroMQ and a Session, and tells it of lost connections."""

from __future__ import annotations

from pathlib import Path

import zmq
from zmq.utils.monitor import recv_monitor_message

from .address import check_address, is_private
from .errors import Disconnected, ProtocolError, SlabwireError, StartError
from .keys import ClientKeys
from .session import Session
from .wire import LARGEST_MESSAGE_NBYTES

# libzmq asks the other side by itself, in a thread of its own: a peer that is stopped or unplugged is noticed after this.
HEARTBEAT_MS = 3000
HEARTBEAT_TIMEOUT_MS = 10_000
_RECONNECT_MS = 50
_LONGEST_RECONNECT_MS = 1000
# What was just said (a cancel, a bye) may still leave when the socket is closed.
_LINGER_MS = 200
_CONNECTED = zmq.EVENT_HANDSHAKE_SUCCEEDED
_REFUSED = {
    zmq.EVENT_HANDSHAKE_FAILED_AUTH: "it does not accept this client's key; put client.key into its folder of clients/",
    zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL: "it speaks another protocol, or one side has keys and the other has none",
}
_LOST = zmq.EVENT_DISCONNECTED


class Dealer:
    """One DEALER socket with its monitor. One thread at a time; `descriptors` are what to wait on between the calls.

    Raises Disconnected for an address that is none, or that needs keys; StartError for keys that cannot be read.
    """

    def __init__(self, address: str, keys: Path | None) -> None:
        _check(address, keys)
        self.session = Session(address)
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        try:
            self._configure(keys)
            events = _CONNECTED | _LOST
            for each in _REFUSED:
                events |= each
            self._monitor = self._socket.get_monitor_socket(events)
            self._socket.connect(address)
        except (zmq.ZMQError, SlabwireError) as error:
            self._socket.close(0)
            self._context.term()
            if isinstance(error, SlabwireError):
                raise
            raise Disconnected(f"{address} is no address that can be connected to: {error.strerror}") from None
        self.descriptors = (self._socket.get(zmq.FD), self._monitor.get(zmq.FD))

    def _configure(self, keys: Path | None) -> None:
        socket = self._socket
        options = {
            zmq.LINGER: _LINGER_MS,
            zmq.MAXMSGSIZE: LARGEST_MESSAGE_NBYTES,
            # Calls in flight and credit bound what comes; a full queue would stop heartbeats, too.
            zmq.RCVHWM: 0,
            zmq.SNDHWM: 0,
            zmq.IMMEDIATE: 1,  # nothing is kept for a gateway that may never come
            zmq.RECONNECT_IVL: _RECONNECT_MS,
            zmq.RECONNECT_IVL_MAX: _LONGEST_RECONNECT_MS,
            zmq.HEARTBEAT_IVL: HEARTBEAT_MS,
            zmq.HEARTBEAT_TIMEOUT: HEARTBEAT_TIMEOUT_MS,
            zmq.IPV6: 1,
        }
        for option, value in options.items():
            socket.setsockopt(option, value)
        if keys is not None:
            known = ClientKeys(keys)
            socket.curve_publickey, socket.curve_secretkey = known.pair
            socket.curve_serverkey = known.server

    def pump(self) -> bool:
        """Sends what waits and takes in what has come, until there is neither; True if anything came."""
        came = False
        while self._socket.get(zmq.EVENTS) & zmq.POLLIN:
            self.session.receive([frame.buffer for frame in self._socket.recv_multipart(zmq.DONTWAIT, copy=False)])
            came = True
        came |= self._hear_monitor()
        return self._send() or came

    def _send(self) -> bool:
        """True if something could be read again meanwhile: libzmq tells of that only once."""
        outbox = self.session.outbox
        while outbox and self._socket.get(zmq.EVENTS) & zmq.POLLOUT:
            try:
                frames = outbox.popleft()
            except IndexError:  # lost in another thread
                break
            try:
                self._socket.send_multipart(frames, zmq.DONTWAIT, copy=False)
            except zmq.Again:
                outbox.appendleft(frames)
                break
        if self._socket.get(zmq.EVENTS) & zmq.POLLIN:
            self.pump()
            return True
        return False

    def _hear_monitor(self) -> bool:
        heard = False
        while self._monitor.get(zmq.EVENTS) & zmq.POLLIN:
            message = recv_monitor_message(self._monitor, zmq.DONTWAIT)
            event = message["event"]
            heard = True
            if event == _CONNECTED:
                self.session.connected()
            elif event == _LOST:
                self.session.lost()
            elif event in _REFUSED:
                self.session.refused = ProtocolError(f"{self.session.address} refuses the connection: {_REFUSED[event]}")
        return heard

    def close(self) -> None:
        """Ends the connection."""
        self._socket.disable_monitor()
        self._monitor.close(0)
        self._socket.close()
        self._context.term()


def _check(address: str, keys: Path | None) -> None:
    try:
        check_address(address)
    except StartError as error:
        raise Disconnected(str(error)) from None
    if keys is None and not is_private(address):
        raise Disconnected(
            f"{address} is another host's, so it needs CURVE keys: connect(..., keys=folder), a folder with "
            "client.key_secret and server.key; see docs/wire.md"
        )
