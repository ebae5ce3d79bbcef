"""What a supervisor tells workers and local clients unasked, about others."""

from __future__ import annotations

from typing import NamedTuple

from .schema import Schema


class Cancelled(NamedTuple):
    """Requests whose callers are gone: end them. Each is (endpoint, request); request 0 means all of the endpoint.

    Told again when a worker asks for everything that is its own, for what its predecessor missed.
    """

    requests: list[tuple[int, int]]


class Left(NamedTuple):
    """A client is gone as a caller: drop its reply lanes. What its calls have set going goes on."""

    endpoint: int
    lanes: list[int]


class Gone(NamedTuple):
    """Nothing of a client is needed any more: drop its lanes and its slabs."""

    endpoint: int
    lanes: list[int]
    slabs: list[int]


class Shrunk(NamedTuple):
    """Slabs that their owner has given back: forget them."""

    slabs: list[int]


News = Cancelled | Left | Gone | Shrunk
NEWS: Schema[News] = Schema("news", {"cancelled": Cancelled, "left": Left, "gone": Gone, "shrunk": Shrunk})
