"""One ring for all that a pass of a loop sends, and none that comes too late."""

from __future__ import annotations

import os
import select
from collections.abc import Iterator

import pytest

from edge import Edge, send_number
from slabwire.runtime.dataplane import held_rings
from slabwire.runtime.dataplane.held_rings import HeldRings
from slabwire.shm.bell import RECORDS, Bell
from slabwire.shm.producer import Producer


@pytest.fixture
def edge() -> Iterator[Edge]:
    edge = Edge()
    yield edge
    edge.close()


def scene(edge: Edge) -> tuple[HeldRings, Producer, Bell]:
    """Rings, a producer that uses them, and the parked bell of its consumer."""
    rings, producer, bell = HeldRings(), edge.producer(), edge.bell(1)
    rings.use(producer)
    bell.park(RECORDS)
    return rings, producer, bell


def is_ringing(bell: Bell) -> bool:
    return bool(select.select([bell.fd], [], [], 0)[0])


def test_who_holds_nothing_rings_at_once(edge: Edge) -> None:
    _, producer, bell = scene(edge)
    send_number(producer, 1)
    assert is_ringing(bell)


def test_what_is_sent_meanwhile_is_rung_for_once(edge: Edge) -> None:
    rings, producer, bell = scene(edge)
    rings.hold()
    send_number(producer, 1)
    send_number(producer, 2)
    assert not is_ringing(bell)
    rings.ring()
    assert os.eventfd_read(bell.fd) == 1
    bell.unpark()
    bell.park(RECORDS)
    rings.ring()
    assert not is_ringing(bell)
    send_number(producer, 3)
    assert is_ringing(bell)


def test_who_has_woken_up_meanwhile_is_not_rung(edge: Edge) -> None:
    rings, producer, bell = scene(edge)
    rings.hold()
    send_number(producer, 1)
    bell.unpark()
    rings.ring()
    assert not is_ringing(bell)


def test_nobody_waits_for_a_task_that_computes(edge: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    rings, producer, bell = scene(edge)
    monkeypatch.setattr(held_rings, "_LONGEST_NS", 0)
    rings.hold()
    send_number(producer, 1)
    assert is_ringing(bell)
