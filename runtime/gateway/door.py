"""A socket of the gateway that clients connect to."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable
from functools import partial

import zmq

from ..errors import StartError
from ..remote.curve_keys import ServerKeys
from ..remote.dealer import HEARTBEAT_MS, HEARTBEAT_TIMEOUT_MS
from ..remote.protocol import LARGEST_MESSAGE_NBYTES, Frame
from ..remote.zmq_events import can_read, descriptor_of
from .inbound_connections import InboundConnection, InboundConnections

# Messages taken in before others get their turn on the loop.
_BATCH = 64
_LINGER_MS = 500
_WAITING_MESSAGES = 64
# Connections that the kernel accepts while we are busy.
_BACKLOG = 1024
DOMAIN = "slabwire"  # of ZAP: whose keys are asked for

# Takes one message, and the public key that its sender came with.
Receive = Callable[[InboundConnection, list[Frame], str], None]


class Door:
    """One ROUTER socket, bound to any number of addresses of one kind: with keys, or for this host only.

    Messages are taken in on the running loop.
    """

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        peers: InboundConnections,
        keys: ServerKeys | None,
        receive: Receive,
    ) -> None:
        self.private = keys is None
        self._all_peers = peers
        self._peers: dict[bytes, InboundConnection] = {}
        self._receive = receive
        self._socket = context.socket(zmq.ROUTER)
        options = {
            zmq.LINGER: _LINGER_MS,
            zmq.MAXMSGSIZE: LARGEST_MESSAGE_NBYTES,
            zmq.RCVHWM: _WAITING_MESSAGES,
            zmq.SNDHWM: 0,  # what waits is counted in bytes: see `backlog`
            zmq.BACKLOG: _BACKLOG,
            zmq.ROUTER_MANDATORY: 1,  # sending to one that is gone is an error
            zmq.HANDSHAKE_IVL: HEARTBEAT_TIMEOUT_MS,
            zmq.HEARTBEAT_IVL: HEARTBEAT_MS,
            zmq.HEARTBEAT_TIMEOUT: HEARTBEAT_TIMEOUT_MS,
        }
        for option, value in options.items():
            self._socket.setsockopt(option, value)
        for uid in {os.geteuid(), 0}:  # over ipc no other user is heard
            self._socket.setsockopt(zmq.IPC_FILTER_UID, uid)
        if keys is not None:
            self._socket.curve_publickey, self._socket.curve_secretkey = keys.pair
            self._socket.curve_server = True
            self._socket.zap_domain = DOMAIN.encode()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(descriptor_of(self._socket), self.take_in)
        self._loop.call_soon(self.take_in)

    def bind(self, address: str) -> str:
        """Listens; returns the address with the port that it got. Raises StartError with the cause."""
        before = os.umask(0o077)  # the socket file of an ipc address is for this user
        self._socket.setsockopt(zmq.IPV6, "[" in address)
        try:
            self._socket.bind(address)
        except zmq.ZMQError as error:
            raise StartError(f"cannot listen at {address}: {_cause(error)}") from None
        finally:
            os.umask(before)
        return self._socket.get_string(zmq.LAST_ENDPOINT)

    def take_in(self) -> None:
        """Takes in what has come, or as much of it as leaves others their turn."""
        for _ in range(_BATCH):
            if self._socket.closed or not can_read(self._socket):
                return
            identity, *frames = self._socket.recv_multipart(zmq.DONTWAIT, copy=False)
            peer = self._peers.get(identity.bytes) or self._enter(identity)
            if peer is not None:
                peer.messages += 1
                who = "" if self.private else str(identity.get("User-Id"))
                self._receive(peer, [each.buffer for each in frames], who)
        self._loop.call_soon(self.take_in)

    def _enter(self, identity: zmq.Frame) -> InboundConnection | None:
        name, descriptor = identity.bytes, int(identity.get(zmq.SRCFD))
        forget = partial(self._peers.pop, name, None)
        peer = self._all_peers.enter(partial(self._write, name), forget, descriptor, _address_of(identity))
        if peer is not None:
            self._peers[name] = peer
        return peer

    def _write(self, name: bytes, frames: list[Frame | zmq.Frame]) -> None:
        """Sends without waiting. Raises ZMQError where nobody of that name is there any more."""
        if not self._socket.closed:
            # libzmq tells of each change only once: what comes while we send goes unnoticed.
            self._loop.call_soon(self.take_in)
            self._socket.send_multipart([name, *frames], zmq.DONTWAIT, copy=False)

    def close(self) -> None:
        self._loop.remove_reader(descriptor_of(self._socket))
        self._socket.close()


def _address_of(identity: zmq.Frame) -> str:
    """Where a message came from, in words."""
    try:
        address = str(identity.get("Peer-Address"))
    except zmq.ZMQError:  # it had gone before libzmq asked
        return "an unknown address"
    local, _, numbers = address.partition("localhost:")  # of a local socket: user, group, process
    return f"a local socket (pid {numbers.rpartition(':')[2]})" if not local and numbers else address


def _cause(error: zmq.ZMQError) -> str:
    if error.errno == zmq.EADDRINUSE:
        return "the address is in use; choose another port, or end what listens there"
    if error.errno == errno.ENODEV:
        return "no interface of this host has that address"
    return str(error.strerror)
