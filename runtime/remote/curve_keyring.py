"""Makes the folders of CURVE keys that `curve_keys` reads. Secrets are written for their owner, and shown to nobody."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp

import zmq

from ..errors import SlabwireError
from .curve_keys import CLIENT, CLIENTS, SERVER, Pair, public_key

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
# The file format of zmq.auth, which reads it.
_PUBLIC = """#   A CURVE public key, which may be shown to anybody

metadata
curve
    public-key = "{public}"
"""
_SECRET = """#   A CURVE secret key: for its owner alone

metadata
curve
    public-key = "{public}"
    secret-key = "{secret}"
"""


class KeysError(SlabwireError):
    """A folder of keys that cannot be made or read."""

    code = "keys"


def new_server(folder: Path) -> str:
    """Makes a gateway's folder, with its pair and room for clients; returns its public key.

    Raises KeysError where something is there already: nothing is overwritten.
    """
    pair = _new_pair()
    with _appearing(folder) as fresh:
        (fresh / CLIENTS).mkdir(mode=0o700)
        _write_pair(fresh, SERVER, pair)
    return pair.public.decode()


def add_client(folder: Path, name: str, output: Path) -> str:
    """Makes a client's folder at `output`, and lets the client in by its public half; returns its public key.

    Raises KeysError where something is there already: nothing is overwritten.
    """
    if not _NAME.fullmatch(name):
        raise KeysError(f"{name!r} is no name of a client: letters, digits, '.', '_' and '-', at most 64")
    server = _public(folder / f"{SERVER}.key")
    entry = folder / CLIENTS / f"{name}.key"
    if entry.exists():
        raise KeysError(f"{entry} is there already: choose another name, or remove it to shut that client out")
    pair = _new_pair()
    with _appearing(output) as fresh:
        _write_pair(fresh, CLIENT, pair)
        _write(fresh / f"{SERVER}.key", _PUBLIC.format(public=server), 0o644)
    try:
        _let_in(entry, pair)  # last: a client that is listed has a folder
    except BaseException:
        shutil.rmtree(output, ignore_errors=True)  # it would open no door, and stand in the way of the next try
        raise
    return pair.public.decode()


def clients_of(folder: Path) -> dict[str, str]:
    """The public key of each client that a gateway lets in, by name. Raises KeysError."""
    _public(folder / f"{SERVER}.key_secret")
    return {each.stem: _public(each) for each in sorted((folder / CLIENTS).glob("*.key"))}


def _new_pair() -> Pair:
    try:
        return Pair(*zmq.curve_keypair())
    except zmq.ZMQError as error:
        raise KeysError(f"libzmq makes no CURVE keys ({error.strerror}); install a pyzmq that has them") from None


def _let_in(entry: Path, pair: Pair) -> None:
    try:
        entry.parent.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise KeysError(f"{entry.parent} cannot be made: {error.strerror}") from None
    _write(entry, _PUBLIC.format(public=pair.public.decode()), 0o644)


def _public(path: Path) -> str:
    try:
        return public_key(path)
    except SlabwireError as error:
        raise KeysError(str(error)) from None


def _write_pair(folder: Path, name: str, pair: Pair) -> None:
    public, secret = pair.public.decode(), pair.secret.decode()
    _write(folder / f"{name}.key_secret", _SECRET.format(public=public, secret=secret), 0o600)
    _write(folder / f"{name}.key", _PUBLIC.format(public=public), 0o644)


def _write(path: Path, text: str, mode: int) -> None:
    """A file that was not there; it has its mode before it holds anything."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        try:
            with open(descriptor, "w") as file:
                file.write(text)
        except BaseException:
            path.unlink(missing_ok=True)  # half a key
            raise
    except OSError as error:
        raise KeysError(f"{path} cannot be written: {error.strerror}") from None


@contextmanager
def _appearing(folder: Path) -> Iterator[Path]:
    """A fresh folder of mode 0700 that takes its place when it is complete, so that a kill leaves none half made."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        fresh = Path(mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    except OSError as error:
        raise KeysError(f"{folder} cannot be made: {error.strerror}") from None
    try:
        yield fresh
        fresh.rename(folder)  # also over an empty folder
    except BaseException as error:
        shutil.rmtree(fresh, ignore_errors=True)
        if isinstance(error, OSError):
            raise KeysError(
                f"{folder} cannot be made: {error.strerror}; keys are never overwritten, name another folder"
            ) from None
        raise
