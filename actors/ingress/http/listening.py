"""Where an ingress listens: at every address that its host stands for, all on one port."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable

from ....runtime.errors import StartError

# A name may stand for addresses that this machine does not have: "localhost" is ::1, too, where IPv6 is switched off.
_NOT_HERE = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)


def open_listeners(host: str, port: int, listen: Callable[[str], socket.socket]) -> list[socket.socket]:
    """Listening sockets at every address of `host` that there is here; port 0 takes any free one. `listen` opens one,
    as `Actor.listen` does.

    Raises StartError: the host is unknown, or the address is taken or not to be had.
    """
    found = _addresses(host, port)
    listeners: list[socket.socket] = []
    for _, address in [each for each in found if _is_here(*each)] or found[:1]:
        taken = listeners[0].getsockname()[1] if listeners else port
        try:
            listeners.append(listen(f"tcp://{authority(address, taken)}"))
        except StartError:
            for each in listeners:
                each.close()
            raise
    return listeners


def _addresses(host: str, port: int) -> list[tuple[socket.AddressFamily, str]]:
    """The addresses that `host` stands for, each once."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    except (OSError, UnicodeError) as error:  # a name with a label that is empty or too long
        cause = f"the host is unknown ({getattr(error, 'strerror', None) or error})"
        place = authority(host, port)
        raise StartError(f"cannot listen on {place}: {cause}; give an address of this machine as host=") from None
    return list(dict.fromkeys((family, str(address[0])) for family, _, _, _, address in found))


def _is_here(family: socket.AddressFamily, address: str) -> bool:
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.bind((address, 0))
    except OSError as error:
        return error.errno not in _NOT_HERE
    return True


def authority(host: str, port: int) -> str:
    """Host and port as they stand in a URL: IPv6 addresses in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
