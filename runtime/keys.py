"""CURVE keys in files: where they lie, and what to do when they do not. Secrets are read here and shown to nobody."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from .errors import StartError

# What `zmq.auth.create_certificates(folder, name)` writes: the public half, and both halves.
SERVER = "server"
CLIENT = "client"
CLIENTS = "clients"
_HOW = "`slabwire keys` makes them; see docs/wire.md"


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
    if path.stat().st_mode & 0o077:
        raise StartError(f"{path} holds a secret that others on this host may read; chmod 600 {path}")
    return Pair(public, secret)


def _load(path: Path) -> tuple[bytes, bytes | None]:
    import zmq.auth

    try:
        return zmq.auth.load_certificate(path)
    except (OSError, ValueError):  # its text could hold a line of the file
        raise StartError(f"{path} is missing, or is no CURVE certificate; {_HOW}") from None
