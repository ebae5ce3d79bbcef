"""What goes through a lane and back: from a bare record to all that a message has, without worker and client.

Each step adds one feature to the one before; what it adds to the round trip is what it costs.
"""

from __future__ import annotations

import random
import struct
from typing import Any, ClassVar, cast

import numpy as np
from numpy.typing import NDArray

from ...runtime.dataplane.pending import deadline_of
from ...runtime.message.encoding import decode
from ...runtime.message.fast_path import encode_and_publish
from ...runtime.message.header import Flag, Header, Kind, read_header, write_record
from ...runtime.message.lending import source_of
from ...shm.bell import now_ns
from ...shm.block import Block
from ...shm.consumer import Consumer
from ...shm.inflight import Inflight
from ...shm.lane import Source
from ...shm.lease import Lease
from ...shm.pool import Pool
from ...shm.producer import Producer
from ...shm.slab import Slab
from ..harness.contestant import BenchError, Payload, checksum
from ..harness.wiring import Wiring

_NUMBER = struct.Struct("<Q")
_REFERENCE = struct.Struct("<IIIIQ")  # row, slab, block, bytes, generation
_BYTE = np.dtype(np.uint8)
_TIMEOUT_S = 60.0
_CALLER, _REQUEST = 1, 7
_DATA, _REPLY, _BLOCK = int(Kind.DATA), int(Kind.REPLY), Flag.BLOCK


class Record:
    """A record there and one back, each with a number in it. Both ends of it, and of those that add to it."""

    title: ClassVar[str] = "record alone"

    def __init__(self, out: Producer, back: Consumer, pool: Pool, wiring: Wiring) -> None:
        self.out = out
        self.back = back
        self.pool = pool
        self.slab = wiring.slab
        self.table: Inflight = wiring.table()

    def ask(self, payload: Payload) -> None:
        """The caller's: carries it there."""
        out = self.out
        out.free_records()
        _NUMBER.pack_into(out.segment.bytes, out.slot(), checksum(payload))
        out.publish()

    def take(self) -> int:
        """The caller's: the answer that has come."""
        back = self.back
        (answer,) = _NUMBER.unpack_from(back.segment.bytes, back.offset())
        back.commit()
        return int(answer)

    def answer(self) -> None:
        """The echo's: handles the record that has come."""
        back, out = self.back, self.out
        (value,) = _NUMBER.unpack_from(back.segment.bytes, back.offset())
        out.free_records()
        _NUMBER.pack_into(out.segment.bytes, out.slot(), value)
        out.publish()
        back.commit()


class Lending(Record):
    """The payload is copied into a block, which the record lends."""

    title = "+ block and lease"

    def ask(self, payload: Payload) -> None:
        out = self.out
        out.free_records()
        _REFERENCE.pack_into(out.segment.bytes, out.slot(), *self._lent(payload))
        out.publish()

    def _lent(self, payload: Payload) -> tuple[int, int, int, int, int]:
        again = self.out.lend_again(payload.nbytes)  # the block that the echo has just let go of: it is still in cache
        if again is not None:
            row, block = again[0], cast(Block, again[1])
        else:
            block = self.pool.take(payload.nbytes)
            block.lends += 1
            row = self.out.lend(block.slab.identifier, block.index, block)
        block.bytes()[: payload.nbytes] = payload.data
        return row, block.slab.identifier, block.index, payload.nbytes, block.generation

    def answer(self) -> None:
        back, out = self.back, self.out
        row, slab, block, nbytes, generation = _REFERENCE.unpack_from(back.segment.bytes, back.offset())
        value = checksum(self._view(row, self.slab(slab), block, generation, nbytes))
        out.free_records()
        _NUMBER.pack_into(out.segment.bytes, out.slot(), value)
        out.publish()
        back.commit()

    def _view(self, row: int, slab: Slab, block: int, generation: int, nbytes: int) -> NDArray[Any]:
        source = Source(self.back.lane, row, self.back.cursor + 1)
        return Lease(self.back, source, slab, block, generation, nbytes).array(0, (nbytes,), _BYTE, None)


class Headed(Lending):
    """Both records bear a message's header."""

    title = "+ header"
    timed = False

    def ask(self, payload: Payload) -> None:
        out = self.out
        out.free_records()
        row, slab, block, nbytes, generation = self._lent(payload)
        deadline, trace = (deadline_of(_TIMEOUT_S), _new_trace()) if self.timed else (0, (0, 0))
        head = (0, 0, 0, _CALLER, 0, _REQUEST, deadline, *trace, 0, 0, 0, 0)
        where = (0, row, slab, block, generation, nbytes)
        write_record(out.segment.bytes, out.slot(), Kind.DATA, Flag.BLOCK, *head, *where, b"")
        out.publish()

    def take(self) -> int:
        back = self.back
        header = read_header(back.segment.bytes, back.offset())
        (answer,) = _NUMBER.unpack_from(header.inline)
        _require(header.request == _REQUEST)
        back.commit()
        return int(answer)

    def answer(self) -> None:
        back, out = self.back, self.out
        header = read_header(back.segment.bytes, back.offset())
        if header.deadline_ns:
            _require(now_ns() <= header.deadline_ns)
        self._begin()
        value = checksum(self._view(header.row, self.slab(header.slab), header.block, header.generation, header.at))
        out.free_records()
        inline = _NUMBER.pack(value)
        where = (len(inline), 0, 0, 0, 0, 0)
        write_record(out.segment.bytes, out.slot(), Kind.REPLY, 0, *_answering(header, back), *where, inline)
        out.publish()
        back.commit()

    def _begin(self) -> None:
        """Nothing here."""


class Timed(Headed):
    """The header says until when, and in which trace; the echo looks whether it is late."""

    title = "+ deadline and trace"
    timed = True


class Noted(Timed):
    """The echo notes what it handles, for a successor."""

    title = "+ in-flight row"

    def _begin(self) -> None:
        self.table.begin_running(self.back.lane, self.back.cursor, 1)


class Message(Record):
    """Everything that a message has: what the one before has, and its value packed and opened as a message is."""

    title = "message, all on"

    def ask(self, payload: Payload) -> None:
        head = (0, 0, 0, _CALLER, 0, _REQUEST, deadline_of(_TIMEOUT_S), *_new_trace(), 0, 0, 0, 0)
        _require(encode_and_publish({"payload": payload}, self.pool, self.out, _DATA, 0, head, is_fields=True))

    def take(self) -> int:
        back = self.back
        header = read_header(back.segment.bytes, back.offset())
        value = decode(header, None)
        _require(header.kind == _REPLY and header.request == _REQUEST)
        back.commit()
        return int(value)

    def answer(self) -> None:
        back = self.back
        header = read_header(back.segment.bytes, back.offset())
        _require(not header.deadline_ns or now_ns() <= header.deadline_ns)
        lease = None
        if header.flags & _BLOCK:
            source = source_of(header, back.lane, back.cursor)
            lease = Lease(back, source, self.slab(header.slab), header.block, header.generation, 0)
        fields = decode(header, lease)
        self.table.begin_running(back.lane, back.cursor, 1)
        value = checksum(fields["payload"])
        _require(encode_and_publish(value, self.pool, self.out, _REPLY, 0, _answering(header, back)))
        back.commit()


def _answering(header: Header, lane: Consumer) -> tuple[int, ...]:
    """The numbers of an answer's header: what travels with the request, and what caused it."""
    return (header.target, 0, 1, *header[5:12], lane.lane, 0, lane.cursor)


def _new_trace() -> tuple[int, int]:
    return random.getrandbits(64), random.getrandbits(64)


def _require(condition: bool) -> None:
    if not condition:
        raise BenchError("a record of a bench is not what it must be")


STEPS: dict[str, type[Record]] = {
    "record": Record,
    "bare_lane": Lending,
    "header": Headed,
    "deadline": Timed,
    "inflight": Noted,
    "message": Message,
}
