"""The socket of a remote client: moves messages between ZeroMQ and a Session, and tells it of lost connections."""

from __future__ import annotations

from pathlib import Path

import zmq
from zmq.utils.monitor import recv_monitor_message

from ..errors import Disconnected, ProtocolError, SlabwireError, StartError
from ..host.descriptors import FOR_A_CONNECTION, require_free
from ..host.inherited import fill_standard_descriptors
from ..host.ownership import require_own_socket
from .addresses import check_address, is_private
from .client_protocol import Session
from .curve_keys import ClientKeys
from .protocol import LARGEST_MESSAGE_NBYTES
from .zmq_events import can_read, can_write, descriptor_of

# libzmq asks the other side by itself, in a thread of its own: so a peer that is stopped or unplugged is noticed.
HEARTBEAT_MS = 3000
HEARTBEAT_TIMEOUT_MS = 10_000
_RECONNECT_MS = 50
_LONGEST_RECONNECT_MS = 1000
# What was just said (a cancel, a bye) may still leave when the socket is closed.
_LINGER_MS = 200
_CONNECTED = zmq.EVENT_HANDSHAKE_SUCCEEDED
_REFUSED: dict[int, str] = {
    zmq.EVENT_HANDSHAKE_FAILED_AUTH: "it does not accept this client's key; slabwire keys add lets one in, or "
    "put client.key into its folder of clients/",
    zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL: "it speaks another protocol, or one side has keys and the other has none",
}
_LOST = zmq.EVENT_DISCONNECTED


class Dealer:
    """One DEALER socket with its monitor. One thread at a time; `descriptors` are what to wait on between the calls.

    Raises Disconnected for an address that is none, is another user's socket, or needs keys; StartError for keys that
    cannot be read.
    """

    def __init__(self, address: str, keys: Path | None) -> None:
        _check(address, keys)
        fill_standard_descriptors()
        self.session = Session(address)
        require_free(FOR_A_CONNECTION, f"connecting to {address}")
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        try:
            self._configure(keys)
            events: int = _CONNECTED | _LOST
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
        self.descriptors = (descriptor_of(self._socket), descriptor_of(self._monitor))

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
        while True:
            came |= self._take_in()
            came |= self._hear_monitor()
            self._send()
            if not can_read(self._socket):  # libzmq tells of each change only once
                return came

    def _take_in(self) -> bool:
        came = False
        while can_read(self._socket):
            self.session.receive([frame.buffer for frame in self._socket.recv_multipart(zmq.DONTWAIT, copy=False)])
            came = True
        return came

    def _send(self) -> None:
        outbox = self.session.outbox
        while outbox and can_write(self._socket):
            frames = outbox.popleft()
            try:
                self._socket.send_multipart(frames, zmq.DONTWAIT, copy=False)
            except zmq.Again:
                outbox.appendleft(frames)
                return

    def _hear_monitor(self) -> bool:
        heard = False
        while can_read(self._monitor):
            message = recv_monitor_message(self._monitor, zmq.DONTWAIT)
            event = int(message["event"])
            heard = True
            if event == _CONNECTED:
                self.session.connected()
            elif event == _LOST:
                self._take_in()  # what came before the end still counts
                self.session.lost()
            elif event in _REFUSED:
                text = f"{self.session.address} refuses the connection: {_REFUSED[event]}"
                self.session.turned_away(ProtocolError(text))
        return heard

    def leave(self) -> None:
        """Says bye, and ends all calls."""
        self.session.say_bye()
        self.pump()
        self.session.close()

    def close(self, *, at_once: bool = False) -> None:
        """Ends the connection; unless `at_once`, what was just said may still leave."""
        self._socket.disable_monitor()
        self._monitor.close(0)
        self._socket.close(0 if at_once else None)
        self._context.term()


def _check(address: str, keys: Path | None) -> None:
    try:
        check_address(address)
    except StartError as error:
        raise Disconnected(str(error)) from None
    if keys is None and not is_private(address):
        raise Disconnected(
            f"{address} is another host's, so it needs CURVE keys: connect(..., keys=folder), a folder that "
            "`slabwire keys add` makes where the graph runs; see docs/wire.md"
        )
    if address.startswith("ipc://"):
        require_own_socket(Path(address.removeprefix("ipc://")))
