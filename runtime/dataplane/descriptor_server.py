"""Where the supervisor hands out descriptors: to its workers, and to clients on this host that knock at a socket."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import socket
from collections.abc import Callable
from pathlib import Path

from ..errors import Disconnected, Overloaded, SlabwireError
from ..host.descriptors import REMEDY, is_scarce
from ..host.ownership import is_own, peer_uid
from .descriptor_channel import FIRST_TOKEN, Channel
from .peers import Peer
from .requests import Requests
from .switchboard import Switchboard

logger = logging.getLogger("slabwire")

# Answers that may wait for one client that asks and does not read. Nothing is told to it that it has not asked for.
MOST_UNSENT = 256


class DescriptorServer:
    """Serves channels on the running loop. `is_open()` says whether new clients are let in."""

    def __init__(self, path: Path, switchboard: Switchboard, is_open: Callable[[], bool]) -> None:
        self._switchboard = switchboard
        self._requests = Requests(switchboard)
        self._is_open = is_open
        self._door = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._door.bind(str(path))
        self._door.listen(64)
        self._door.setblocking(False)
        self._spare = os.dup(self._door.fileno())

    def open(self) -> None:
        """Starts to let clients in; inside the running loop."""
        asyncio.get_running_loop().add_reader(self._door, self._accept)

    def attach(self, peer: Peer, channel: Channel) -> None:
        """Serves a peer from now on."""
        peer.channel = channel
        peer.is_told = False
        asyncio.get_running_loop().add_reader(channel.fileno(), self._serve, peer, channel)

    def detach(self, peer: Peer) -> None:
        """Its process is gone."""
        if peer.channel is not None:
            loop = asyncio.get_running_loop()
            loop.remove_reader(peer.channel.fileno())
            loop.remove_writer(peer.channel.fileno())
            peer.hang_up()

    def turn_out(self, client: int) -> None:
        """Ends a client's connection: it writes into its lanes what no client writes."""
        peer = self._switchboard.peers.get(client)
        if peer is not None and not peer.instances:
            self.detach(peer)
            self._switchboard.departures.turned_out(peer)

    def _accept(self) -> None:
        """A client of the same user (or root) becomes a peer."""
        try:
            connection, _ = self._door.accept()
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                self._turn_away(error)
            return
        if is_scarce(connection.fileno()):
            _refuse(Channel(connection), OSError(errno.EMFILE, os.strerror(errno.EMFILE)))
            return
        if not is_own(peer_uid(connection)) or not self._is_open():
            connection.close()
            return
        channel = Channel(connection, MOST_UNSENT)
        try:
            peer = self._switchboard.add_client(channel)
        except (OSError, SlabwireError) as error:
            _refuse(channel, error)
        else:
            self.attach(peer, channel)

    def _turn_away(self, error: OSError) -> None:
        """There is no descriptor for a client: without one kept in reserve it could not even be told."""
        os.close(self._spare)
        try:
            connection, _ = self._door.accept()
            _refuse(Channel(connection), error)
        except OSError:
            pass  # it has gone, or another process took what was free
        finally:
            self._spare = os.dup(self._door.fileno())

    def _serve(self, peer: Peer, channel: Channel) -> None:
        if not self._requests.serve(peer, channel):
            self.detach(peer)
            if not peer.instances:
                self._switchboard.departures.client_left(peer)
        self._flush_all()

    def _flush_all(self) -> None:
        """Peers whose sockets were full get the rest when they have room."""
        loop = asyncio.get_running_loop()
        for peer in self._switchboard.peers.values():
            if peer.channel is not None and peer.channel.has_unsent:
                loop.add_writer(peer.channel.fileno(), self._flush, peer)

    def _flush(self, peer: Peer) -> None:
        channel = peer.channel
        if channel is not None:
            with contextlib.suppress(Disconnected):
                if not channel.flush():
                    return
            asyncio.get_running_loop().remove_writer(channel.fileno())

    def close(self) -> None:
        for peer in list(self._switchboard.peers.values()):
            self.detach(peer)
        asyncio.get_running_loop().remove_reader(self._door)
        self._door.close()
        os.close(self._spare)


def _refuse(channel: Channel, error: Exception) -> None:
    """Answers the first question that a client will ask, and ends the connection."""
    text = str(error)
    if isinstance(error, OSError):
        text = f"the supervisor is out of descriptors ({error}): close clients, or {REMEDY}"
    logger.error("a client was turned away: %s", text)
    code = error.code if isinstance(error, SlabwireError) else Overloaded.code
    with contextlib.suppress(Disconnected):
        channel.send({"answer": FIRST_TOKEN, "error": [code, text]})
    channel.close()
