"""A gateway's first word to its supervisor, over a stream socket."""

from __future__ import annotations

from typing import NamedTuple

from .schema import Schema


class Listening(NamedTuple):
    """Where the gateway listens: addresses with the ports that it got, and its public CURVE key or an empty text."""

    addresses: list[str]
    key: str = ""


class CannotListen(NamedTuple):
    """Why the gateway cannot listen. It ends."""

    error: str


FirstWord = Listening | CannotListen
FIRST_WORDS: Schema[FirstWord] = Schema("gateway", {"listening": Listening, "cannot_listen": CannotListen})
