"""The ring in memory that its keeper keeps and every ingress reads, and the one whose keys a process has for itself.

There are two halves: the keeper writes the one that is not in use, and then publishes it by one store, so a crash
leaves whole what was published. A digest over the half and its generation tells a reader that was overtaken.
"""

from __future__ import annotations

import struct
import time
from hashlib import sha256
from typing import Protocol

from ....runtime.actor.kept import Kept
from ....shm import fence
from ....shm.layout import LINE_NBYTES, Group, Layout, Word
from .key import NAME_NBYTES, SECRET_NBYTES, Rules, TicketKey
from .ring import SLOTS, Ring, advanced
from .states import State

# Under this name its keeper keeps it.
RING_NAME = "ring"

_KEEPER = "the keeper of the ring"
_HEAD = struct.Struct("<6Q")
_SLOT = struct.Struct(f"<Q{NAME_NBYTES}s{SECRET_NBYTES}s{SECRET_NBYTES}s3Q")
_DIGEST_NBYTES = 32
_BODY_NBYTES = _HEAD.size + SLOTS * _SLOT.size
RING = Layout(
    "ticket keys",
    Group(
        "published",
        _KEEPER,
        (
            Word(
                "generation",
                "how often the ring was published; modulo 2 the half that holds it; 0: never",
                "every ingress",
                pairs_with="RingReader.latest",
            ),
        ),
    ),
    Group(
        "halves",
        _KEEPER,
        (
            Word("digest", "SHA-256 over generation and body", "every ingress", nbytes=_DIGEST_NBYTES),
            Word("body", "rules, number of keys, and the keys", "every ingress", nbytes=_BODY_NBYTES),
        ),
        rows=2,
        aligned=LINE_NBYTES,
    ),
)
_HALF_NBYTES = _DIGEST_NBYTES + _BODY_NBYTES

# Their numbers in the ring.
_STATES = tuple(State)
# A reader is overtaken where the keeper publishes twice while it copies 2 KiB.
_READ_AGAIN = 4


class Keys(Protocol):
    """Where ticket keys come from."""

    def latest(self) -> Ring | None:
        """The ring as it is now: the same object for as long as it is the same. None: there is none yet."""


class OwnKeys:
    """One key for this process alone, made now, for as long as it lives."""

    def __init__(self) -> None:
        self._ring = advanced(Ring(Rules()), time.time_ns())

    def latest(self) -> Ring:
        """As Keys says."""
        return self._ring


class RingReader:
    """Reads the ring, from anywhere. One thread."""

    def __init__(self, kept: Kept) -> None:
        self._kept = kept
        self._word = kept.placed.word("generation")
        self._generation = 0
        self._ring: Ring | None = None

    def latest(self) -> Ring | None:
        """As Keys says. What cannot be read whole leaves it at the last that was."""
        for _ in range(_READ_AGAIN):
            # Pairs with the store of RingWriter.publish: the half that it names was written before.
            generation = self._kept.words[self._word]
            if generation == self._generation:
                break
            read = self._read(generation)
            if read is not None:
                self._generation, self._ring = generation, read
                break
        return self._ring

    def _read(self, generation: int) -> Ring | None:
        """None where the keeper has come on meanwhile, or somebody else wrote."""
        start = self._kept.placed.offset("digest", generation % 2)
        half = bytes(self._kept.bytes[start : start + _HALF_NBYTES])
        digest, body = half[:_DIGEST_NBYTES], half[_DIGEST_NBYTES:]
        return _unpacked(body) if digest == _digest(generation, body) else None


class RingWriter:
    """Publishes the ring. Of one process at a time, whose predecessor is gone."""

    def __init__(self, kept: Kept) -> None:
        self._kept = kept
        self._word = kept.placed.word("generation")

    def publish(self, ring: Ring) -> None:
        """From the next time that it is read on, the ring is this. The keys that it has no more are nowhere then."""
        words, generation = self._kept.words, self._kept.words[self._word] + 1
        body = _packed(ring)
        self._write(generation % 2, _digest(generation, body) + body)
        if not fence.KEEPS_ORDER:
            fence.full_barrier()
        # Pairs with the load of RingReader.latest.
        words[self._word] = generation
        self._write(1 - generation % 2, bytes(_HALF_NBYTES))

    def _write(self, half: int, data: bytes) -> None:
        start = self._kept.placed.offset("digest", half)
        self._kept.bytes[start : start + len(data)] = data


def _digest(generation: int, body: bytes) -> bytes:
    return sha256(generation.to_bytes(8, "little") + body).digest()


def _packed(ring: Ring) -> bytes:
    rules = ring.rules
    packed = [_HEAD.pack(rules.lifetime, rules.interval, rules.lead, rules.chain, rules.epoch, len(ring.keys))]
    for key in ring.keys:
        times = key.created, key.activate_at, key.expire_at
        packed.append(_SLOT.pack(_STATES.index(key.state), key.name, key.aes, key.hmac, *times))
    return b"".join(packed).ljust(_BODY_NBYTES, b"\0")


def _unpacked(body: bytes) -> Ring:
    *rules, count = _HEAD.unpack_from(body)
    slots = (_SLOT.unpack_from(body, _HEAD.size + n * _SLOT.size) for n in range(count))
    return Ring(Rules(*rules), tuple(TicketKey(_STATES[state], *rest) for state, *rest in slots))
