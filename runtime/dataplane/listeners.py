"""Listening sockets that the supervisor holds for actors: connections that wait in them outlive a worker."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from ipaddress import ip_address

from ..errors import StartError
from ..host.forks import keep_from_children
from .listen_address import FORMS, InheritedAddress, ListenAddress, TcpAddress, UnixAddress, read_address

# A server listens at a few addresses; each costs the supervisor a descriptor.
MOST_SOCKETS = 64
# Connections that the kernel keeps while nobody takes them; Linux caps it at net.core.somaxconn.
BACKLOG = 512


@dataclass
class HeldSocket:
    """One listening socket. `asked` is its address as actors give it, `users` are the instances that have it.

    `file` says which file its path named when it was made.
    """

    actor: str
    asked: ListenAddress
    listener: socket.socket
    file: tuple[int, int] | None = None
    users: set[str] = field(default_factory=set)

    @property
    def address(self) -> ListenAddress:
        """Where it listens: with the port that the kernel chose."""
        if isinstance(self.asked, TcpAddress):
            return self.asked._replace(port=int(self.listener.getsockname()[1]))
        return self.asked

    @property
    def is_reachable(self) -> bool:
        """Not where somebody has removed its path."""
        return not isinstance(self.asked, UnixAddress) or _file_at(self.asked.path) == self.file

    def end(self) -> None:
        """Nobody listens there any more, also where some process has kept the descriptor: unless it was inherited,
        since it is still its owner's then. Its path goes, unless somebody else's file lies there by now.
        """
        with contextlib.suppress(OSError):
            if isinstance(self.asked, UnixAddress) and self.is_reachable:
                os.unlink(self.asked.path)
            if not isinstance(self.asked, InheritedAddress):
                self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()


class Listeners:
    """All of one graph: opened when they are first asked for, closed with it. One thread.

    Each replica has a TCP socket of its own, and the kernel spreads connections over those of one port; a path, or an
    inherited descriptor, is one socket for all. `inherited` are the descriptors that the graph was started with.
    """

    def __init__(self, inherited: Collection[int] = ()) -> None:
        self._inherited = frozenset(inherited)
        self._held: list[HeldSocket] = []

    def __iter__(self) -> Iterator[HeldSocket]:
        return iter(self._held)

    def open(self, actor: str, replicas: int, instance: str, text: str) -> int:
        """The descriptor of the instance's socket, which stays here. The same one at every ask.

        Raises StartError with the address and the remedy, OSError where there is no descriptor for it.
        """
        asked = read_address(text)
        of_actor = [each for each in self._held if (each.actor, each.asked) == (actor, asked)]
        is_shared = not isinstance(asked, TcpAddress)
        held = next((each for each in of_actor if is_shared or instance in each.users), None)
        if held is not None and not held.is_reachable:
            self._held.remove(held)
            held.listener.close()  # other replicas may have it still
            held = None
        if held is None:
            if sum(instance in each.users for each in self._held) >= MOST_SOCKETS:
                raise _refusal(instance, asked, f"it has {MOST_SOCKETS} sockets, which is the most", "use fewer")
            held = self._open(actor, asked, instance, of_actor, replicas)
            self._held.append(held)
        held.users.add(instance)
        return held.listener.fileno()

    def _open(
        self, actor: str, asked: ListenAddress, instance: str, others: list[HeldSocket], replicas: int
    ) -> HeldSocket:
        file = None
        try:
            if isinstance(asked, TcpAddress):
                port = others[0].listener.getsockname()[1] if others else asked.port
                listener = _listen_tcp(asked._replace(port=port), joins=bool(others), is_shared=replicas > 1)
            elif isinstance(asked, UnixAddress):
                listener = _listen_unix(asked.path)
                file = _file_at(asked.path)
            else:
                listener = self._adopted(asked)
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                raise
            raise _refusal(instance, asked, *_explained(asked, error)) from None
        except ValueError as error:  # no number of a host, or a path that file names cannot be made of
            raise _refusal(instance, asked, str(error), f"give {FORMS}") from None
        return HeldSocket(actor, asked, keep_from_children(listener), file)

    def _adopted(self, asked: InheritedAddress) -> socket.socket:
        if asked.number not in self._inherited:
            raise OSError(errno.EBADF, "no such descriptor was handed to the graph")
        if not stat.S_ISSOCK(os.fstat(asked.number).st_mode):
            raise OSError(errno.ENOTSOCK, "it is no socket")
        listener = socket.socket(fileno=os.dup(asked.number))
        if not listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            listener.close()
            raise OSError(errno.EINVAL, "it does not listen")
        listener.setblocking(False)
        return listener

    def leave(self, instances: Collection[str]) -> None:
        """These will not be started again: what only they had is closed, so that nobody waits there for an answer."""
        for held in list(self._held):
            held.users.difference_update(instances)
            if not held.users:
                self._held.remove(held)
                held.end()

    def close(self) -> None:
        """The graph has ended."""
        for held in self._held:
            held.end()
        self._held.clear()


def _listen_tcp(address: TcpAddress, *, joins: bool, is_shared: bool) -> socket.socket:
    """The first socket of a port is bound as if it were alone, so that another graph's port is an error and no share;
    with `joins` it comes to one that is shared already. Numeric hosts only: nothing here waits.
    """
    ip_address(address.host)
    flags = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV | socket.AI_PASSIVE
    found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=flags)
    family, place = found[0][0], found[0][4]
    # asyncio sets TCP_NODELAY only on sockets whose protocol is named. Without it each handshake, and each answer
    # that is written in two pieces, waits 40 ms for an acknowledgement.
    listener = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK, socket.IPPROTO_TCP)
    try:
        # The next graph takes the address at once, though connections of the last one linger in TIME_WAIT.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if joins:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind(place)
        if is_shared:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def _listen_unix(path: str) -> socket.socket:
    """A socket at the path, for this user alone. What a dead graph has left there is replaced."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        os.fchmod(listener.fileno(), 0o600)  # what bind makes has this mode: nobody slips in between
        try:
            listener.bind(path)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or not _is_stale(path):
                raise
            os.unlink(path)
            listener.bind(path)
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def _is_stale(path: str) -> bool:
    """Whether a socket lies there that nobody listens at."""
    if not stat.S_ISSOCK(os.lstat(path).st_mode):
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        return probe.connect_ex(path) == errno.ECONNREFUSED


def _file_at(path: str) -> tuple[int, int] | None:
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _refusal(instance: str, address: ListenAddress, cause: str, remedy: str) -> StartError:
    return StartError(f"{instance} cannot listen on {address}: {cause}; {remedy}")


def _explained(address: ListenAddress, error: OSError) -> tuple[str, str]:
    """Cause and remedy."""
    reason = error.strerror or str(error)
    match address:
        case TcpAddress(_, port) if error.errno == errno.EADDRINUSE:
            shows = f"`ss -ltnp 'sport = :{port}'` shows it"
            return "the address is in use", f"end the program that has it ({shows}), or choose another port"
        case TcpAddress() if error.errno == errno.EACCES:
            return "ports below 1024 are the system's", "choose another port"
        case TcpAddress():
            return reason, "give an address of this machine"
        case UnixAddress(path) if error.errno == errno.EADDRINUSE:
            shows = f"`ss -lxp src {path}` shows who listens there"
            return "somebody listens there, or the file is no socket", f"choose another path ({shows})"
        case UnixAddress(path) if error.errno == errno.ENOENT:
            return f"there is no folder {os.path.dirname(path)}", "make it first"
        case UnixAddress(path):
            return reason, f"choose a path in a folder that this user may write to, not {os.path.dirname(path)}"
        case _:
            return reason, "give fd:// the number of a listening socket that the graph was started with (LISTEN_FDS)"
