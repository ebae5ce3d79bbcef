"""The certificates in use, in memory that outlives the process: its successor has them where the files will not do."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path

import msgpack

from ....runtime.actor.kept import Kept
from ....shm.layout import Group, Layout, Word
from .certificate import Certificate, certificates_in_der, fit, private_key_in_der

logger = logging.getLogger("slabwire")

# Three chains of three certificates have 20 KiB.
_SLOT_NBYTES = 64 << 10
_LENGTH_NBYTES, _DIGEST_NBYTES = 4, 32
_SLOTS = ("slot_0", "slot_1")

CERTIFICATES = Layout(
    "certificates of an ingress",
    Group(
        "certificates",
        "the first replica",
        (
            Word("written", "how often; the last time into the slot of its parity", "all replicas, at their start"),
            *(Word(each, "length, SHA-256, and what was in use", "all replicas", _SLOT_NBYTES) for each in _SLOTS),
        ),
    ),
)


class KeptCertificates:
    """What the first replica of an ingress uses, for all that start after it. Keys lie there as they do in its own
    memory: nobody but processes of the graph has it, and no file.
    """

    def __init__(self, kept: Kept) -> None:
        self._kept = kept
        self._written = kept.placed.word("written")

    def save(self, certificates: Sequence[Certificate]) -> None:
        """From now on these. Does nothing in other replicas, which use the same."""
        if self._kept.replica != 0:
            return
        content = msgpack.packb(
            [[str(each.chain), str(each.key), str(each.public), each.chain_der, each.key_der] for each in certificates]
        )
        length = len(content).to_bytes(_LENGTH_NBYTES, "little")
        slot = length + hashlib.sha256(content).digest() + content
        if len(slot) > _SLOT_NBYTES:
            logger.warning("the certificates are too large to be kept: a process that starts anew needs their files")
            return
        written = self._kept.words[self._written] + 1
        begin = self._kept.placed[_SLOTS[written % 2]]
        self._kept.bytes[begin : begin + len(slot)] = slot
        self._kept.words[self._written] = written  # publishes the slot: read() loads it first

    def read(self) -> tuple[Certificate, ...]:
        """Those that were saved last; none where nothing was, or where it is being overwritten twice just now."""
        written = self._kept.words[self._written]  # pairs with the store in save()
        if not written:
            return ()
        begin = self._kept.placed[_SLOTS[written % 2]]
        slot = bytes(self._kept.bytes[begin : begin + _SLOT_NBYTES])
        length, rest = int.from_bytes(slot[:_LENGTH_NBYTES], "little"), slot[_LENGTH_NBYTES:]
        digest, content = rest[:_DIGEST_NBYTES], rest[_DIGEST_NBYTES : _DIGEST_NBYTES + length]
        if hashlib.sha256(content).digest() != digest:
            return ()
        return tuple(
            fit(Path(chain), certificates_in_der(ders), Path(key), private_key_in_der(der), Path(public))
            for chain, key, public, ders, der in msgpack.unpackb(content)
        )
