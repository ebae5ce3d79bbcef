"""The header of a record: what kind it is, where it goes, whose request it serves, and where its payload lies."""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import Any, NamedTuple

from ...shm.errors import CorruptLane, MessageError
from ...shm.lane import RECORD_NBYTES


class Kind(IntEnum):
    """What a record is for."""

    DATA = 1  # a message for a handler
    REPLY = 2  # the one answer of a call
    ITEM = 3  # one item of a stream of replies
    END = 4  # the stream is over; also travels along edges behind the stream's items
    ERROR = 5  # the call failed: payload [code, text]
    CANCEL = 6  # the caller has lost interest; follows the request along the edges
    BATCH = 7  # items and ends of many streams of one caller: see `item_batch`
    MOVED = 8  # to the caller: the request was handed on, and lies there now; see `Whereabouts`


class Flag:
    """How the payload of a record is read. Plain numbers, since the `&` of an IntFlag costs 0.6 µs each time."""

    FIELDS = 1  # a dict by field name, not one value
    IN_BLOCK = 2  # the metadata lies in the block, at `at`
    BLOCK = 4  # the record refers to a block, and lends it
    ITEM = 8  # one of a stream: what becomes of it is one item of the reply
    PLAIN = 32  # the metadata is msgpack that holds no tensors
    KEYED = 64  # one of the fields is an idempotency key: see `with_key`
    ARRAY = 16  # the metadata is no msgpack but one array, whose description ends at `at`
    DELEGATED = 128  # a request that its handler has handed on; one of the fields says how often: see `with_hops`


class Header(NamedTuple):
    """All of a record. `inline` has INLINE_NBYTES, of which the first `nbytes` are the metadata if they fit.

    `reply_to` is the endpoint that waits for the answer (0: nobody), `request` is its number there, and `route` says by
    index in the graph's routes which port answers. `deadline_ns` (0: none) and `sent_ns`, when it was published, are on
    CLOCK_MONOTONIC. The causing input (lane, sequence) and `ordinal` name an output for good: a successor does not send
    it again.
    """

    kind: int
    flags: int = 0
    source: int = 0
    target: int = 0
    attempt: int = 0
    reply_to: int = 0
    route: int = 0
    request: int = 0
    deadline_ns: int = 0
    trace_high: int = 0
    trace_low: int = 0
    sent_ns: int = 0
    cause_lane: int = 0
    ordinal: int = 0
    cause_sequence: int = 0
    nbytes: int = 0
    row: int = 0
    slab: int = 0
    block: int = 0
    generation: int = 0
    at: int = 0
    inline: bytes = b""

    @property
    def key(self) -> tuple[int, int]:
        """Names the request among all of the graph."""
        return self.reply_to, self.request

    @property
    def trace(self) -> str:
        """The trace id in W3C form: 32 hex digits."""
        return f"{self.trace_high:016x}{self.trace_low:016x}"


# Native, not standard: the same bytes, but numbers above 30 bits are packed twice as fast.
_FIELDS = "@BBHHHIILLLLLIILIIIILL"
KIND_AT = 0  # where `kind` lies in a record, a byte
SENT_AT = struct.calcsize(_FIELDS[: _FIELDS.index("L") + 4])  # where `sent_ns` lies in a record
INLINE_NBYTES = RECORD_NBYTES - struct.calcsize(_FIELDS)
_RECORD = struct.Struct(f"{_FIELDS}{INLINE_NBYTES}s")  # one call for all of it: each costs more than the bytes
_FIRST_KIND, _LAST_KIND, _IN_BLOCK = int(min(Kind)), int(max(Kind)), Flag.IN_BLOCK

# Called with buffer, offset, and all fields of a Header.
write_record = _RECORD.pack_into
_read, _as_tuple = _RECORD.unpack_from, tuple.__new__


def read_header(buffer: memoryview, offset: int) -> Header:
    """The record at `offset`. Raises CorruptLane if no correct peer can have written it."""
    header = _as_tuple(Header, _read(buffer, offset))
    if not _FIRST_KIND <= header.kind <= _LAST_KIND or (header.nbytes > INLINE_NBYTES and not header.flags & _IN_BLOCK):
        raise CorruptLane(f"a record of kind {header.kind} with {header.nbytes} bytes of metadata")
    return header


# The field that is an idempotency key: a user's field must have the name of a parameter, and none can have this one.
_KEY_FIELD = ""


def with_key(fields: dict[str, Any], key: str) -> dict[str, Any]:
    """The fields of a message that carries an idempotency key. The caller must flag its record with `Flag.KEYED`."""
    return {**fields, _KEY_FIELD: key}


def take_key(value: Any) -> str:
    """Takes the key out of the fields of a flagged record. Raises MessageError where it has none."""
    key = value.pop(_KEY_FIELD, None) if isinstance(value, dict) else None
    if not isinstance(key, str):
        raise MessageError("a message says that it carries an idempotency key, and carries none")
    return key
