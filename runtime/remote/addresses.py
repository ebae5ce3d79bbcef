"""Addresses of gateways: which are allowed, and which need keys."""

from __future__ import annotations

import ipaddress

from ..errors import StartError

_EXAMPLES = "tcp://127.0.0.1:5555 or ipc:///path/of/a/socket"


def check_address(address: str) -> None:
    """Raises StartError for what is no tcp:// or ipc:// address."""
    scheme, found, rest = address.partition("://")
    if not found or scheme not in ("tcp", "ipc") or not rest:
        raise StartError(f"{address!r} is no address of a graph; write {_EXAMPLES}")
    host, colon, port = rest.rpartition(":")
    if scheme == "tcp" and (not colon or not host or not (port == "*" or (port.isdecimal() and int(port) < 65536))):
        raise StartError(f"{address!r} has no port that can be used; write {_EXAMPLES}")


def is_private(address: str) -> bool:
    """Whether only this host can reach an address that was checked: ipc, or a loopback interface."""
    scheme, _, rest = address.partition("://")
    if scheme == "ipc":
        return True
    host = rest.rpartition(":")[0].strip("[]")
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def with_port(asked: str, found: str) -> str:
    """The address that was asked for, with the port that was found for it where any would do."""
    return f"{asked[:-1]}{found.rpartition(':')[2]}" if asked.startswith("tcp://") and asked.endswith(":*") else asked


def demand_keys(address: str) -> StartError:
    """The error for an address that others can reach, without keys."""
    return StartError(
        f"{address} can be reached from other hosts, so it needs CURVE keys: set SLABWIRE_KEYS to a folder that "
        "`slabwire keys new FOLDER` makes (clients come in by `slabwire keys add FOLDER CLIENT`; see docs/wire.md), "
        "or listen at tcp://127.0.0.1"
    )
