"""What the peers' servers and the process of their source say to each other: msgpack behind its length.

A server says which streams are open, and the source a batch at a time which texts came for which of them.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Sequence
from typing import Any

import msgpack

_LENGTH = struct.Struct("<I")
# Ten steps of 10,000 streams: whoever is that far behind is left out until it has caught up.
_MOST_WAITING_NBYTES = 1 << 22


def open_message(number: int, *, briefly: bool) -> bytes:
    """A stream begins."""
    return _framed([number, 2 if briefly else 1])


def close_message(number: int) -> bytes:
    """Nobody reads a stream any more."""
    return _framed([number, 0])


def step_message(numbers: Sequence[int], texts: Sequence[str]) -> bytes:
    """A text for each of these streams."""
    return _framed([numbers, texts])


async def read_message(reader: asyncio.StreamReader) -> Any:
    """The next one. Raises IncompleteReadError at the end."""
    (nbytes,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
    return msgpack.unpackb(await reader.readexactly(nbytes))


def has_room(writer: asyncio.StreamWriter) -> bool:
    """Whether the other end reads what it is sent: nobody waits here, and what waits has a bound."""
    return writer.transport.get_write_buffer_size() < _MOST_WAITING_NBYTES


def _framed(message: list[Any]) -> bytes:
    packed: bytes = msgpack.packb(message)
    return _LENGTH.pack(len(packed)) + packed
