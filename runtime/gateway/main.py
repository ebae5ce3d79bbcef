"""The process that lets remote clients in: a client of the graph on one side, a ROUTER socket on the other.

Started as `python -m slabwire.runtime.gateway.main` by the supervisor, and tied to it. It says over `--fd` where it
listens, or why it cannot, and from then on whenever it turns out a client.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import faulthandler
import logging
import signal
import socket
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import zmq

from ..clients.async_connection import AsyncLocalConnection
from ..control.gateway import FIRST_WORDS, CannotListen, Listening
from ..errors import Disconnected, Overloaded, SlabwireError, cut_off_error
from ..host.frames import write_frame
from ..host.heap import give_heap_back
from ..host.inherited import put_right
from ..host.lifeline import HUNG_SIGNAL, die_with_parent
from ..logs.log_format import configure_logging
from ..remote.addresses import check_address, demand_keys, is_private
from ..remote.curve_keys import Admission, ServerKeys
from ..remote.exposed_ports import described_ports
from ..remote.frame_codec import pack_value
from ..remote.protocol import LARGEST_MESSAGE_NBYTES, MOST_CREDIT, Frame, FrameKind, Head, pack_head, unpack_head
from .budget import MOST_HELD_NBYTES, Budget
from .door import DOMAIN, Door
from .error_frames import error_frames
from .idempotent_calls import IdempotentCalls
from .inbound_connections import InboundConnection, InboundConnections
from .remote_peer import MOST_CALLS, RemotePeer, Shared
from .remote_streams import MOST_STREAMS
from .unwanted_connections import EndlessMessages, Strangers

logger = logging.getLogger("slabwire")

MOST_CLIENTS = 256
# libzmq lets go of what waited for a client that was turned out, in its own thread.
_HEAP_BACK_AFTER_S = 1.0
_LOOK_EVERY_S = 0.5


class Gateway:
    """One ROUTER socket for hosts like this one, and one with CURVE where there are keys. Everything on one loop.

    Calls go over the connection `graph`, streams over `streams`. `turned_out()` is called for each client that has to
    go. `parent` is the public key of whoever started this process: it comes in beside the clients.
    """

    def __init__(
        self,
        name: str,
        graph: AsyncLocalConnection,
        streams: AsyncLocalConnection,
        keys: ServerKeys | None,
        parent: str,
        turned_out: Callable[[], None],
    ) -> None:
        self.name = name
        self._doors: dict[bool, Door] = {}  # by whether it is for this host alone
        self.context = zmq.Context()
        self._graph = graph
        self._streams = streams
        requests = Budget()
        self._keyed = IdempotentCalls(requests)
        self._shared = Shared(graph, streams, self._keyed, requests, Budget(MOST_HELD_NBYTES))
        self._peers = InboundConnections(self.forget, self._turned_out)
        self._watching = asyncio.get_running_loop().create_task(self._peers.watch())
        self._tell_turned_out = turned_out
        self._remote_peers: dict[InboundConnection, RemotePeer] = {}
        self._leaving: set[asyncio.Future[list[Any]]] = set()
        self._keys = keys
        self._parent = parent
        self._authenticator: Any = None

    def listen(self, address: str) -> str:
        """Opens a door at an address; returns it with the port that it got. Raises StartError."""
        check_address(address)
        private = is_private(address)
        if not private and self._keys is None:
            raise demand_keys(address)
        if not private:
            self._authenticate()
        if private not in self._doors:
            self._doors[private] = Door(self.context, self._peers, None if private else self._keys, self.receive)
        return self._doors[private].bind(address)

    def _authenticate(self) -> None:
        from zmq.auth.thread import ThreadAuthenticator

        if self._authenticator is None and self._keys is not None:
            logging.getLogger("zmq.auth").setLevel(logging.WARNING)
            self._authenticator = ThreadAuthenticator(self.context)
            self._authenticator.start()
            admission = Admission(self._keys.clients, self._parent.encode())
            self._authenticator.configure_curve_callback(DOMAIN, admission)

    # -- clients -----------------------------------------------------------------------------------------------------

    def receive(self, peer: InboundConnection, frames: list[Frame], who: str) -> None:
        """One message of whoever is at the other end, and came with the public key `who`."""
        try:
            head = unpack_head(frames)
            if head.kind == FrameKind.PING:
                peer.send([pack_head(Head(FrameKind.PONG, head.id)), *pack_value(None)])
            elif head.kind == FrameKind.HELLO:
                self._welcome(peer, head, who)
            elif head.kind == FrameKind.BYE:
                self.forget(peer)
            elif peer in self._remote_peers:
                self._remote_peers[peer].receive(head, frames[1:])
            elif head.kind == FrameKind.CALL:
                raise Disconnected("this gateway does not know the client; say hello first")
        except SlabwireError as error:
            self._turn_away(peer, error)
        except Exception as error:  # a fault of ours must not stop the door for everybody
            logger.exception("a message of a remote client could not be handled")
            self._turn_away(peer, SlabwireError(f"the gateway failed: {type(error).__name__}"))

    def _turn_away(self, peer: InboundConnection, error: SlabwireError) -> None:
        self.forget(peer)
        peer.send(error_frames(error))

    def _turned_out(self, peer: InboundConnection, why: str) -> None:
        logger.warning(
            "the client at %s is turned out: %s; it has to read its answers, or to have fewer large ones on the way",
            peer.address,
            why,
        )
        self._part_with_memory()

    def _part_with_memory(self) -> None:
        """Somebody was turned out."""
        self._tell_turned_out()
        asyncio.get_running_loop().call_later(_HEAP_BACK_AFTER_S, give_heap_back)

    def _welcome(self, peer: InboundConnection, hello: Head, who: str) -> None:
        self.forget(peer)  # one that says hello again has lost its calls
        if len(self._remote_peers) >= MOST_CLIENTS:
            self._peers.look()
        if len(self._remote_peers) >= MOST_CLIENTS:
            raise Overloaded(f"{MOST_CLIENTS} clients are connected to this gateway; try again when some have left")
        limits = {"calls": MOST_CALLS, "message_nbytes": LARGEST_MESSAGE_NBYTES, "credit": MOST_CREDIT}
        welcome = {"graph": self.name, "ports": described_ports(self._graph.local.routing), "limits": limits}
        self._remote_peers[peer] = RemotePeer(peer, self._shared, who, takes_items=hello.items)
        peer.send([pack_head(Head(FrameKind.WELCOME, items=hello.items, sends=True)), *pack_value(welcome)])

    def forget(self, peer: InboundConnection, error: SlabwireError | None = None) -> None:
        """The client is gone, or may not stay: its calls are cancelled, with this error if it is to hear of it."""
        remote_peer = self._remote_peers.pop(peer, None)
        if remote_peer is not None:
            leaving = remote_peer.leave(error)
            self._leaving.add(leaving)
            leaving.add_done_callback(self._leaving.discard)

    # -- life --------------------------------------------------------------------------------------------------------

    async def run(self, stop: asyncio.Event) -> None:
        """Serves until told to stop. Raises Disconnected where the graph does not serve us any more."""
        strangers, unfinished = Strangers(), EndlessMessages()
        while not stop.is_set():
            if self._graph.is_gone or self._streams.is_gone:
                raise Disconnected(f"{self._graph.whose} serves this client no more")
            strangers.look({each.inode for each in self._remote_peers})
            for peer in self._remote_peers.values():
                peer.settle()
            for door in self._doors.values():  # what is whole by now is not unfinished
                door.take_in()
            for _ in range(unfinished.look(self._peers.messages())):
                self._part_with_memory()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_EVERY_S):
                    await stop.wait()

    async def close(self) -> None:
        """Ends what is in flight with an error and closes the doors; what was answered is still sent."""
        for peer in list(self._remote_peers):
            self.forget(peer, cut_off_error(self.name))
        await asyncio.gather(*self._leaving, return_exceptions=True)
        await self._keyed.close()
        self._watching.cancel()
        for each in self._doors.values():
            each.close()
        if self._authenticator is not None:
            self._authenticator.stop()
        await self._streams.close()
        await self._graph.close()
        self.context.term()


def main() -> int:
    """The process."""
    put_right()
    parser = argparse.ArgumentParser()
    parser.add_argument("--graph", required=True)
    parser.add_argument("--listen", action="append", default=[])
    parser.add_argument("--keys", type=Path)
    parser.add_argument("--parent-key", default="")
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--fd", type=int, required=True)
    arguments = parser.parse_args()
    die_with_parent(arguments.parent)
    faulthandler.register(HUNG_SIGNAL, all_threads=True)
    configure_logging()
    with socket.socket(fileno=arguments.fd) as parent:
        return asyncio.run(_run(arguments, parent))


def _count_turned_out(parent: socket.socket) -> None:
    with contextlib.suppress(OSError):  # it is gone, and we are about to be
        parent.send(b"\0", socket.MSG_DONTWAIT)


async def _run(arguments: argparse.Namespace, parent: socket.socket) -> int:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    graph, streams = AsyncLocalConnection(arguments.graph), AsyncLocalConnection(arguments.graph, MOST_STREAMS)
    try:
        await asyncio.gather(graph.open(0.0), streams.open(0.0))
        keys = ServerKeys(arguments.keys) if arguments.keys is not None else None
    except SlabwireError as error:
        write_frame(parent, FIRST_WORDS.document(CannotListen(str(error))))
        return 1
    turned_out = partial(_count_turned_out, parent)
    gateway = Gateway(arguments.graph, graph, streams, keys, arguments.parent_key, turned_out)
    try:
        addresses = [gateway.listen(each) for each in arguments.listen]
    except SlabwireError as error:
        write_frame(parent, FIRST_WORDS.document(CannotListen(str(error))))
        await gateway.close()
        return 1
    try:
        key = keys.pair.public.decode() if keys is not None else ""
        write_frame(parent, FIRST_WORDS.document(Listening(addresses, key)))
        logger.info("listening at %s", ", ".join(addresses))
        await gateway.run(stop)
    except Disconnected as error:
        logger.error("%s; the gateway ends, and is started again if the graph goes on", error)
        return 1
    finally:
        await gateway.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
