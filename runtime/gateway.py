"""The process that lets remote clients in: a client of the graph on one side, a ROUTER socket on the other.

Started as `python -m slabwire.runtime.gateway` by the supervisor, and tied to it. It says over `--fd` where it
listens, or why it cannot, and from then on that it lives.
"""

from __future__ import annotations

import argparse
import asyncio
import errno
import logging
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any

import zmq

from .address import check_address, demand_keys, is_private
from .budget import Budget
from .crate import pack_value
from .dealer import HEARTBEAT_MS, HEARTBEAT_TIMEOUT_MS
from .errors import Disconnected, Overloaded, SlabwireError, StartError, cut_off_error
from .exposed import described_ports
from .frames import write_frame
from .keyed_calls import KeyedCalls
from .keys import Admission, ServerKeys
from .lifeline import die_with_parent
from .logs import configure_logging
from .pulse import Heart
from .readiness import can_read, descriptor_of
from .tap import Taps
from .visitor import MOST_CALLS, GraphClient, Visitor, error_frames
from .wire import LARGEST_MESSAGE_NBYTES, MOST_CREDIT, Frame, Head, Kind, pack_head, unpack_head

logger = logging.getLogger("slabwire")

MOST_CLIENTS = 256
# Messages taken in before others get their turn on the loop.
_BATCH = 64
_LINGER_MS = 500
# A peer that is gone is forgotten at the event that says so; some time may pass until libzmq refuses to send to it.
_PROBE_AGAIN_S = 0.05
_PROBE_EVERY_S = 10.0
_WAITING_MESSAGES = 64
_DOMAIN = "slabwire"  # of ZAP: whose keys are asked for


class Gateway:
    """One ROUTER socket for hosts like this one, and one with CURVE where there are keys. Everything on one loop."""

    def __init__(self, name: str, graph: GraphClient, keys: Path | None) -> None:
        self.name = name
        self.doors: list[Door] = []
        self.context = zmq.Context()
        self._graph = graph
        self._taps = Taps(name)
        self._budget = Budget()
        self._keyed = KeyedCalls(self._budget)
        self._visitors: dict[tuple[Door, bytes], Visitor] = {}
        self._leaving: set[asyncio.Task[None]] = set()
        self._keys = ServerKeys(keys) if keys is not None else None
        self._authenticator: Any = None

    def listen(self, address: str) -> str:
        """Opens a door at an address; returns it with the port that it got. Raises StartError."""
        check_address(address)
        private = is_private(address)
        if not private and self._keys is None:
            raise demand_keys(address)
        if not private:
            self._authenticate()
        door = next((each for each in self.doors if each.private == private), None)
        if door is None:
            door = Door(self, None if private else self._keys)
            self.doors.append(door)
        return door.bind(address)

    def _authenticate(self) -> None:
        from zmq.auth.thread import ThreadAuthenticator

        if self._authenticator is None and self._keys is not None:
            logging.getLogger("zmq.auth").setLevel(logging.WARNING)
            self._authenticator = ThreadAuthenticator(self.context)
            self._authenticator.start()
            self._authenticator.configure_curve_callback(_DOMAIN, Admission(self._keys.clients))

    # -- clients -----------------------------------------------------------------------------------------------------

    def receive(self, door: Door, identity: bytes, frames: list[Frame], who: str = "") -> None:
        """One message of whoever has that identity, and came with the public key `who`."""
        client = door, identity
        try:
            head = unpack_head(frames)
            if head.kind == Kind.HELLO:
                self._welcome(door, identity, who)
            elif head.kind == Kind.BYE:
                self.forget(door, identity)
            elif client in self._visitors:
                self._visitors[client].receive(head, frames[1:])
            elif head.kind == Kind.CALL:
                raise Disconnected("this gateway does not know the client; say hello first")
        except SlabwireError as error:
            self._turn_away(door, identity, error)
        except Exception as error:  # a fault of ours must not stop the door for everybody
            logger.exception("a message of a remote client could not be handled")
            self._turn_away(door, identity, SlabwireError(f"the gateway failed: {type(error).__name__}"))

    def _turn_away(self, door: Door, identity: bytes, error: SlabwireError) -> None:
        self.forget(door, identity)
        door.send(identity, error_frames(error))

    def _welcome(self, door: Door, identity: bytes, who: str) -> None:
        self.forget(door, identity)  # one that says hello again has lost its calls
        if len(self._visitors) >= MOST_CLIENTS:
            raise Overloaded(f"{MOST_CLIENTS} clients are connected to this gateway; try again when some have left")
        limits = {"calls": MOST_CALLS, "message_nbytes": LARGEST_MESSAGE_NBYTES, "credit": MOST_CREDIT}
        welcome = {"graph": self.name, "ports": described_ports(self._graph.routing), "limits": limits}
        self._visitors[door, identity] = Visitor(
            lambda frames: door.send(identity, frames), self._graph, self._taps, self._budget, self._keyed, who
        )
        door.send(identity, [pack_head(Head(Kind.WELCOME)), *pack_value(welcome)])

    def forget(self, door: Door, identity: bytes, error: SlabwireError | None = None) -> None:
        """The client is gone, or may not stay: its calls are cancelled, with this error if it is to hear of it."""
        visitor = self._visitors.pop((door, identity), None)
        if visitor is not None:
            task = asyncio.get_running_loop().create_task(visitor.leave(error))
            self._leaving.add(task)
            task.add_done_callback(self._leaving.discard)

    def probe(self) -> None:
        """Forgets the clients that nothing can be sent to any more."""
        ping: list[Frame] = [pack_head(Head(Kind.PING)), *pack_value(None)]
        for door, identity in list(self._visitors):
            door.send(identity, ping)

    # -- life --------------------------------------------------------------------------------------------------------

    async def run(self, stop: asyncio.Event) -> None:
        """Serves until told to stop."""
        for door in self.doors:
            door.open()
        while not stop.is_set():
            try:
                async with asyncio.timeout(_PROBE_EVERY_S):
                    await stop.wait()
            except TimeoutError:
                self.probe()

    async def close(self) -> None:
        """Ends what is in flight with an error and closes the doors; what was answered is still sent."""
        for door, identity in list(self._visitors):
            self.forget(door, identity, cut_off_error(self.name))
        await asyncio.gather(*self._leaving, return_exceptions=True)
        await self._keyed.close()
        for each in self.doors:
            each.close()
        if self._authenticator is not None:
            self._authenticator.stop()
        self._taps.close()
        await self._graph.close()
        self.context.term()


class Door:
    """One ROUTER socket, bound to any number of addresses of one kind: with keys, or for this host only."""

    def __init__(self, gateway: Gateway, keys: ServerKeys | None) -> None:
        self.private = keys is None
        self._gateway = gateway
        self._socket = gateway.context.socket(zmq.ROUTER)
        options = {
            zmq.LINGER: _LINGER_MS,
            zmq.MAXMSGSIZE: LARGEST_MESSAGE_NBYTES,
            zmq.RCVHWM: _WAITING_MESSAGES,
            # What may wait for one client is bounded by its calls and its credit.
            zmq.SNDHWM: 0,
            zmq.ROUTER_MANDATORY: 1,  # sending to one that is gone is an error, by which it is noticed
            zmq.HEARTBEAT_IVL: HEARTBEAT_MS,
            zmq.HEARTBEAT_TIMEOUT: HEARTBEAT_TIMEOUT_MS,
        }
        for option, value in options.items():
            self._socket.setsockopt(option, value)
        if keys is not None:
            self._socket.curve_publickey, self._socket.curve_secretkey = keys.pair
            self._socket.curve_server = True
            self._socket.zap_domain = _DOMAIN.encode()
        self._monitor = self._socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)

    def bind(self, address: str) -> str:
        """Listens. Raises StartError with the cause."""
        before = os.umask(0o077)  # the socket file of an ipc address is for this user
        self._socket.setsockopt(zmq.IPV6, "[" in address)
        try:
            self._socket.bind(address)
        except zmq.ZMQError as error:
            raise StartError(f"cannot listen at {address}: {_cause(error)}") from None
        finally:
            os.umask(before)
        return self._socket.get_string(zmq.LAST_ENDPOINT)

    def open(self) -> None:
        """From now on messages are taken in."""
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(descriptor_of(self._socket), self._drain)
        self._loop.add_reader(descriptor_of(self._monitor), self._hear_monitor)
        self._loop.call_soon(self._drain)

    def _drain(self) -> None:
        for _ in range(_BATCH):
            if self._socket.closed or not can_read(self._socket):
                return
            identity, *frames = self._socket.recv_multipart(zmq.DONTWAIT, copy=False)
            who = "" if self.private else str(identity.get("User-Id"))
            self._gateway.receive(self, identity.bytes, [each.buffer for each in frames], who)
        self._loop.call_soon(self._drain)

    def send(self, identity: bytes, frames: list[Frame]) -> None:
        """Sends, or forgets a client that is gone."""
        if self._socket.closed:
            return
        try:
            self._socket.send_multipart([identity, *frames], zmq.DONTWAIT, copy=False)
        except zmq.ZMQError as error:
            logger.debug("a client is gone: %s", error)
            self._gateway.forget(self, identity)
        self._loop.call_soon(
            self._drain
        )  # libzmq tells of each change only once: what came while we sent goes unnoticed

    def _hear_monitor(self) -> None:
        while can_read(self._monitor):
            self._monitor.recv_multipart(zmq.DONTWAIT)
        self._gateway.probe()
        self._loop.call_later(_PROBE_AGAIN_S, self._gateway.probe)

    def close(self) -> None:
        if hasattr(self, "_loop"):
            self._loop.remove_reader(descriptor_of(self._socket))
            self._loop.remove_reader(descriptor_of(self._monitor))
        self._socket.disable_monitor()
        self._monitor.close(0)
        self._socket.close()


def _cause(error: zmq.ZMQError) -> str:
    if error.errno == zmq.EADDRINUSE:
        return "the address is in use; choose another port, or end what listens there"
    if error.errno == errno.ENODEV:
        return "no interface of this host has that address"
    return str(error.strerror)


def main() -> int:
    """The process."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--graph", required=True)
    parser.add_argument("--listen", action="append", default=[])
    parser.add_argument("--keys", type=Path)
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--fd", type=int, required=True)
    arguments = parser.parse_args()
    die_with_parent(arguments.parent)
    configure_logging()
    with socket.socket(fileno=arguments.fd) as owner:
        return asyncio.run(_run(arguments, owner))


async def _run(arguments: argparse.Namespace, owner: socket.socket) -> int:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    graph = GraphClient(arguments.graph)
    try:
        await graph.open()
        gateway = Gateway(arguments.graph, graph, arguments.keys)
    except SlabwireError as error:
        write_frame(owner, {"error": str(error)})
        return 1
    try:
        addresses = [gateway.listen(each) for each in arguments.listen]
        write_frame(owner, {"addresses": addresses})
        Heart(owner).beat()
        logger.info("listening at %s", ", ".join(addresses))
        await gateway.run(stop)
    except SlabwireError as error:
        write_frame(owner, {"error": str(error)})
        return 1
    finally:
        await gateway.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
