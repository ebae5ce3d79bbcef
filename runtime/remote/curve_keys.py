"""CURVE keys in files: where they lie, and what to do when they do not. Secrets are read here and shown to nobody."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ..errors import StartError

# What `zmq.auth.create_certificates(folder, name)` writes: the public half, and both halves.
SERVER = "server"
CLIENT = "client"
CLIENTS = "clients"
# A folder may change twice within one tick of its clock; then it is read again.
_SETTLES_AFTER_NS = 1_000_000_000
_HOW = "`slabwire keys` makes them; see docs/wire.md"

logger = logging.getLogger("slabwire")


class Pair(NamedTuple):
    """A key pair in Z85; its text shows the public half only."""

    public: bytes
    secret: bytes

    def __repr__(self) -> str:
        return f"Pair({self.public.decode()})"


class ServerKeys:
    """The keys of a gateway: its own pair in `server.key_secret`, in `clients/` the public keys of those who may come.

    Raises StartError, naming the file, where something is missing.
    """

    def __init__(self, folder: Path) -> None:
        self.pair = _pair(folder / f"{SERVER}.key_secret")
        self.clients = folder / CLIENTS
        if not any(self.clients.glob("*.key")):
            raise StartError(
                f"{self.clients} holds no client's public key (*.key), so nobody could connect; "
                f"slabwire keys add {folder} CLIENT"
            )


class Admission:
    """Who may come in: those whose public keys lie in a folder. It is looked at again when it has changed, so clients
    are let in and shut out while the gateway runs. So may `always`. Called by libzmq's authenticator, in its thread.
    """

    def __init__(self, folder: Path, always: bytes = b"") -> None:
        self._folder = folder
        self._always = always
        self._seen: tuple[int, int, int] | None = None
        self._keys: frozenset[bytes] = frozenset()

    def callback(self, domain: str, key: bytes) -> bool:  # noqa: ARG002 - there is one
        """Whether the owner of a key in Z85 may come in."""
        if key == self._always:
            return True
        self._look()
        return key in self._keys

    def _look(self) -> None:
        try:
            status = self._folder.stat()  # a link to it may have come to mean another one
            seen = status.st_dev, status.st_ino, status.st_mtime_ns
            if seen != self._seen or time.time_ns() - status.st_mtime_ns < _SETTLES_AFTER_NS:
                self._seen = seen
                self._keys = frozenset(self._read())
        except OSError as error:
            logger.error("%s cannot be read, so no client may come in: %s", self._folder, error.strerror)
            self._seen, self._keys = None, frozenset()

    def _read(self) -> Iterator[bytes]:
        for path in self._folder.glob("*.key"):
            try:
                yield _load(path)[0]
            except StartError as error:  # one that is broken keeps out nobody else
                logger.error("%s", error)


class ClientKeys:
    """The keys of a client: its own pair in `client.key_secret`, the gateway's public key in `server.key`."""

    def __init__(self, folder: Path) -> None:
        self.pair = _pair(folder / f"{CLIENT}.key_secret")
        self.server = _load(folder / f"{SERVER}.key")[0]


def public_key(path: Path) -> str:
    """The public key in a certificate. Raises StartError, naming the file."""
    return _load(path)[0].decode()


def _pair(path: Path) -> Pair:
    public, secret = _load(path)
    if secret is None:
        raise StartError(f"{path} holds no secret key; {_HOW}")
    why = _why_open(path.stat())
    if why:
        raise StartError(f"{path} holds a secret, and {why}; chmod 600 {path}, as its owner")
    return Pair(public, secret)


def _why_open(status: os.stat_result) -> str:
    """Why a secret is not for us alone; empty if it is. Kubernetes mounts it as root's, to be read by a group of ours
    (`fsGroup`).
    """
    if status.st_mode & 0o007:
        return "others on this host may read it or change it"
    if status.st_uid not in (os.geteuid(), 0):
        return f"it belongs to user {status.st_uid}, who is neither root nor user {os.geteuid()} that wants to read it"
    if status.st_mode & 0o030:
        return f"group {status.st_gid} may change it"
    if status.st_mode & 0o040 and status.st_gid not in (os.getegid(), *os.getgroups()):
        return f"group {status.st_gid}, which is none of ours, may read it"
    return ""


def _load(path: Path) -> tuple[bytes, bytes | None]:
    import zmq.auth

    try:
        return zmq.auth.load_certificate(path)
    except PermissionError:
        raise StartError(
            f"{path} may not be read by user {os.geteuid()} or its groups; see its mode and owner"
        ) from None
    except (OSError, ValueError):  # its text could hold a line of the file
        raise StartError(f"{path} is missing, or is no CURVE certificate; {_HOW}") from None
