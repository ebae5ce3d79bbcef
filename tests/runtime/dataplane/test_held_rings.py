"""One ring for all that a pass of a loop sends, and none that comes too late."""

from __future__ import annotations

import os
import select
from collections.abc import Iterator
from typing import Any

import pytest

from edge import Edge, send_number
from slabwire.runtime.dataplane import held_rings
from slabwire.runtime.dataplane.held_rings import HeldRings
from slabwire.shm.bell import RECORDS


@pytest.fixture
def edge() -> Iterator[Edge]:
    edge = Edge()
    yield edge
    edge.close()


@pytest.fixture
def scene(edge: Edge) -> Any:
    """Rings, a producer that uses them, and the parked bell of its consumer."""
    rings, producer, bell = HeldRings(), edge.producer(), edge.bell(1)
    rings.use(producer)
    bell.park(RECORDS)
    return rings, producer, bell


def is_ringing(bell: Any) -> bool:
    return bool(select.select([bell.fd], [], [], 0)[0])


def test_who_holds_nothing_rings_at_once(scene: Any) -> None:
    _, producer, bell = scene
    send_number(producer, 1)
    assert is_ringing(bell)


def test_what_is_sent_meanwhile_is_rung_for_once(scene: Any) -> None:
    rings, producer, bell = scene
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


def test_who_has_woken_up_meanwhile_is_not_rung(scene: Any) -> None:
    rings, producer, bell = scene
    rings.hold()
    send_number(producer, 1)
    bell.unpark()
    rings.ring()
    assert not is_ringing(bell)


def test_nobody_waits_for_a_task_that_computes(scene: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rings, producer, bell = scene
    monkeypatch.setattr(held_rings, "_LONGEST_NS", 0)
    rings.hold()
    send_number(producer, 1)
    assert is_ringing(bell)
