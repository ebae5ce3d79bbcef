"""The ring in shared memory: what a reader sees whatever was written of it when it looked."""

from __future__ import annotations

import random
import threading

from hypothesis import given, settings
from hypothesis import strategies as st

from slabwire.actors.ingress.tickets.key import Rules, S
from slabwire.actors.ingress.tickets.memory import RING, OwnKeys, RingReader, RingWriter
from slabwire.actors.ingress.tickets.ring import SLOTS, Ring, advanced, revoked, rotated
from slabwire.runtime.actor.kept import Kept
from slabwire.shm.layout import prove

NOW = 1_800_000_000 * S
RULES = Rules(lead=0)


def memory(data: bytes | None = None) -> Kept:
    placed = RING.place()
    view = memoryview(bytearray(data or bytes(placed.nbytes)))
    return Kept(view.cast("Q"), view, placed, 0)


def rings(count: int) -> list[Ring]:
    ring = advanced(Ring(RULES), NOW)
    made = [ring]
    while len(made) < count:
        ring = rotated(ring, NOW + len(made))
        made.append(ring)
    return made


def test_the_layout_is_proved() -> None:
    prove(RING.place())


def test_what_is_published_is_read_and_stays_the_same_object() -> None:
    kept = memory()
    writer, reader = RingWriter(kept), RingReader(kept)
    assert reader.latest() is None
    for ring in rings(SLOTS):
        writer.publish(ring)
        assert reader.latest() == ring == RingReader(kept).latest()
        assert reader.latest() is reader.latest()


def test_a_key_that_is_gone_is_nowhere_in_the_memory() -> None:
    kept = memory()
    ring = rings(3)[-1]
    RingWriter(kept).publish(ring)
    RingWriter(kept).publish(revoked(ring, key := ring.keys[0], NOW))
    assert key.aes not in bytes(kept.bytes)
    assert key.hmac not in bytes(kept.bytes)
    assert key.name in bytes(kept.bytes)


def test_the_keys_of_one_process_are_always_the_same() -> None:
    keys = OwnKeys()
    assert keys.latest() is keys.latest()
    assert keys.latest() != OwnKeys().latest()


OLD, NEW, NEWER = rings(3)


@settings(max_examples=300, deadline=None)
@given(st.sets(st.integers(0, RING.place().nbytes // 8 - 1)), st.booleans())
def test_torn_memory_gives_a_whole_ring_or_the_last(written: set[int], twice: bool) -> None:
    """Any of the words of one or two later states are there already, the others not yet."""
    kept = memory()
    RingWriter(kept).publish(OLD)
    reader, before = RingReader(kept), bytes(kept.bytes)
    assert reader.latest() == OLD
    for ring in (NEW, NEWER) if twice else (NEW,):
        RingWriter(kept).publish(ring)
    after = bytes(kept.bytes)
    torn = b"".join((after if n in written else before)[8 * n : 8 * n + 8] for n in range(len(before) // 8))
    kept.bytes[:] = torn
    assert reader.latest() in (OLD, NEW, NEWER)
    assert RingReader(kept).latest() in (None, OLD, NEW, NEWER)


@given(st.integers(0, RING.place().nbytes))
def test_a_keeper_that_dies_while_it_writes_leaves_what_was_published(nbytes: int) -> None:
    """A publication is written in this order: the half that is not in use, the generation, then the half that was."""
    kept = memory()
    RingWriter(kept).publish(OLD)
    before = bytes(kept.bytes)
    RingWriter(kept).publish(NEW)
    after, start = bytes(kept.bytes), [kept.placed.offset("digest", half) for half in (0, 1)]
    size = start[1] - start[0]
    order = [*range(start[0], start[0] + size), *range(128, 136), *range(start[1], start[1] + size)]
    done = set(order[:nbytes])
    kept.bytes[:] = bytes(after[n] if n in done else before[n] for n in range(len(before)))
    published = nbytes >= size + 1
    assert RingReader(kept).latest() == (NEW if published else OLD)


def test_bits_that_nobody_wrote_are_seen() -> None:
    kept = memory()
    RingWriter(kept).publish(OLD)
    start = kept.placed.offset("digest", 1)
    whole = bytes(kept.bytes)
    for _ in range(200):
        kept.bytes[:] = whole
        kept.bytes[start + random.randrange(32 + 48 + 112)] ^= 1 << random.randrange(8)
        assert RingReader(kept).latest() is None


def test_readers_beside_a_writer_see_whole_rings() -> None:
    kept = memory()
    writer, some, over = RingWriter(kept), rings(SLOTS), threading.Event()
    writer.publish(some[0])
    readers = [RingReader(kept) for _ in range(2)]
    wrong: list[object] = [each.latest() for each in readers if each.latest() != some[0]]

    def read(reader: RingReader) -> None:
        while not over.is_set():
            if (ring := reader.latest()) not in some:
                wrong.append(ring)

    threads = [threading.Thread(target=read, args=(each,)) for each in readers]
    for each in threads:
        each.start()
    for _ in range(100):
        for ring in some:
            writer.publish(ring)
    over.set()
    for each in threads:
        each.join()
    assert not wrong
    assert [each.latest() for each in readers] == [some[-1]] * 2
