"""The addresses that an actor may listen at, as text: tcp://host:port, unix:///path, fd://number."""

from __future__ import annotations

import re
import socket
from typing import NamedTuple

from ..errors import StartError

# sun_path of the kernel holds 108 bytes, and one of them ends the text.
_MOST_PATH_NBYTES = 107
_TCP = re.compile(r"tcp://(?:\[([\w.:%-]+)\]|([\w.-]+)):([0-9]{1,5})")
_FD = re.compile(r"fd://([0-9]{1,9})")
FORMS = "tcp://127.0.0.1:8443, tcp://[::1]:8443 (port 0: any free one), unix:///path or fd://3"


class TcpAddress(NamedTuple):
    """A host, by name or number, and a port; port 0 stands for a free one."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"tcp://[{self.host}]:{self.port}" if ":" in self.host else f"tcp://{self.host}:{self.port}"


class UnixAddress(NamedTuple):
    """An absolute path, where a socket will lie."""

    path: str

    def __str__(self) -> str:
        return f"unix://{self.path}"


class InheritedAddress(NamedTuple):
    """A descriptor that the process which runs the graph was started with."""

    number: int

    def __str__(self) -> str:
        return f"fd://{self.number}"


ListenAddress = TcpAddress | UnixAddress | InheritedAddress


def read_address(text: str) -> ListenAddress:
    """Raises StartError for what is no address, with the forms that there are."""
    if found := _TCP.fullmatch(text):
        if (port := int(found[3])) < 1 << 16:
            return TcpAddress(found[1] or found[2], port)
    elif text.startswith("unix:///"):
        return _unix(text.removeprefix("unix://"))
    elif found := _FD.fullmatch(text):
        return InheritedAddress(int(found[1]))
    raise StartError(f"nobody can listen at {text!r}; give {FORMS}")


def _unix(path: str) -> UnixAddress:
    nbytes = len(path.encode(errors="replace"))
    if "\0" in path or not path.isprintable():
        raise StartError(f"the path of a socket is {path!r}; give one of printable characters")
    if nbytes > _MOST_PATH_NBYTES:
        raise StartError(f"the path of a socket has {nbytes} bytes: {path}; give one of {_MOST_PATH_NBYTES} at most")
    return UnixAddress(path)


def numeric(address: TcpAddress) -> TcpAddress:
    """The first address that its host stands for; it may have to be asked for over the network. Raises StartError."""
    try:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    except (OSError, UnicodeError) as error:  # a name with a label that is empty or too long
        cause = f"the host is unknown ({getattr(error, 'strerror', None) or error})"
        raise StartError(f"cannot listen on {address}: {cause}; give an address of this machine") from None
    return TcpAddress(str(found[0][4][0]), address.port)
