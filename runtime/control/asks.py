"""What a worker or a local client asks of its supervisor. An answer says only whether it was done: what was asked for
comes before the answer, as offers.
"""

from __future__ import annotations

from typing import NamedTuple

from .schema import Schema


class Start(NamedTuple):
    """What is this process to do? A worker's first ask. Brings its assignment."""


class EverythingMine(NamedTuple):
    """Offer me all that is mine: bells, lanes, slabs, tables."""


class Grow(NamedTuple):
    """I need one more slab of my own, of `blocks` blocks of `block_nbytes` each."""

    block_nbytes: int
    blocks: int


class Shrink(NamedTuple):
    """A slab of mine is idle: take it back."""

    slab: int


class View(NamedTuple):
    """Let me read a slab of somebody else. Brings nothing where the slab is gone."""

    slab: int


class OpenRoute(NamedTuple):
    """I am going to call the entry of this route: connect both ends."""

    route: int


Ask = Start | EverythingMine | Grow | Shrink | View | OpenRoute
ASKS: Schema[Ask] = Schema(
    "ask",
    {
        "start": Start,
        "everything_mine": EverythingMine,
        "grow": Grow,
        "shrink": Shrink,
        "view": View,
        "open_route": OpenRoute,
    },
)
