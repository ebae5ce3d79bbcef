"""Items of many streams in one message: how its payload is written and read. No I/O; `docs/wire.md` describes it.

The payload is an array of two: of each stream its call's id, how many items come and whether the stream then ends; and
all the values, in the same order.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import msgpack

from ..errors import ProtocolError
from .frame_codec import unpack_value
from .protocol import LARGEST_ID, Frame

# A longer value goes in a message of its own: to copy it costs more than a message does.
MOST_VALUE_NBYTES = 4096
# From here on another message is begun: so long as this takes, nothing else leaves by its connection.
FULL_FROM_NBYTES = 256 << 10
# That one message may name: more would take much memory for nothing.
MOST_STREAMS = 1 << 14
_PAIR = b"\x92"  # msgpack's array of two
_LIST = struct.Struct(">BI")  # its array 32: a byte, and how many elements follow
_LIST_CODE = 0xDD
_ENTRY_NBYTES = 16


class Delivery(NamedTuple):
    """What a message brings for one call."""

    id: int
    values: list[Any]
    is_over: bool


class ItemsMessage:
    """Gathers packed values for one message. A stream comes once in it."""

    def __init__(self) -> None:
        self._entries: list[tuple[int, int, bool]] = []
        self._values: list[bytes] = []
        self.nbytes = 0

    @property
    def is_empty(self) -> bool:
        return not self._entries

    def add(self, number: int, values: Sequence[bytes], *, is_over: bool) -> None:
        """The next values of a call, each as msgpack; whether its stream ends behind them."""
        self._entries.append((number, len(values), is_over))
        self._values += values
        self.nbytes += _ENTRY_NBYTES + sum(map(len, values))

    def payload(self) -> bytes:
        return b"".join((_PAIR, msgpack.packb(self._entries), _LIST.pack(_LIST_CODE, len(self._values)), *self._values))


def unpack_items(frames: Sequence[Frame]) -> Iterable[Delivery]:
    """What lies in a payload. Raises MessageError or ProtocolError, before anything is delivered, for what is none."""
    match unpack_value(frames):
        case [list(entries), list(values)] if len(frames) == 1 and len(entries) <= MOST_STREAMS:
            pass
        case _:
            raise ProtocolError("a message of items is no array of two arrays, is too long, or has frames beside it")
    found, at = [], 0
    for entry in entries:
        match entry:
            case [int(number), int(count), bool(is_over)] if _is_sound(number, count):
                found.append(Delivery(number, values[at : at + count], is_over))
                at += count
            case _:
                raise ProtocolError("a message of items describes a stream by something else than [id, count, is over]")
    if at != len(values):
        raise ProtocolError(f"a message of items announces {at} and holds {len(values)}")
    return found


def _is_sound(number: int, count: int) -> bool:
    return type(number) is int and type(count) is int and 0 < number <= LARGEST_ID and count >= 0
