"""Layouts: every one that the package declares has one writer a line, and a bad one is caught."""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

import slabwire
from edge import Edge, receive, send_block
from slabwire.shm import layout as layout_module
from slabwire.shm.errors import LayoutError
from slabwire.shm.inflight import INFLIGHT
from slabwire.shm.lane import LANE
from slabwire.shm.layout import LINE_NBYTES, Group, Layout, Placed, Word, all_layouts, prove
from slabwire.shm.segment import Segment
from slabwire.shm.slab import SLAB


def _modules() -> dict[str, str]:
    """The source of every module of the package, whichever floor it lies on."""
    sources = {}
    for floor in pkgutil.iter_modules(slabwire.__path__, "slabwire."):
        if floor.name in FLOORS:
            for found in pkgutil.walk_packages([str(Path(slabwire.__path__[0]) / floor.name[9:])], f"{floor.name}."):
                spec = importlib.util.find_spec(found.name)
                assert spec is not None
                assert spec.origin is not None
                sources[found.name] = Path(spec.origin).read_text()
    return sources


FLOORS = ("slabwire.shm", "slabwire.runtime", "slabwire.cli", "slabwire.actors", "slabwire.bench")
DECLARING = sorted(
    name for name, source in _modules().items() if re.search(r"^[A-Z_]+ = Layout\(", source, re.MULTILINE)
)


def _import_all() -> list[Layout]:
    for name in DECLARING:
        importlib.import_module(name)
    return [each for each in all_layouts() if not each.name.startswith("test")]


LAYOUTS = _import_all()


def test_all_layouts_were_found() -> None:
    assert {"bell", "inflight", "lane", "recorder", "slab", "stats"} <= {each.name for each in LAYOUTS}
    assert len(LAYOUTS) >= len(DECLARING)


def test_a_layout_is_declared_in_a_way_that_is_found() -> None:
    """By a constant of its module: one that were made elsewhere could be missed."""
    made = {name for name, source in _modules().items() if re.search(r"\bLayout\(", source)}
    assert made == set(DECLARING)


def test_all_floors_are_searched() -> None:
    searched = {name.split(".")[1] for name in _modules()}
    assert searched == {each.partition(".")[2] for each in FLOORS}
    folders = {each.parent.name for each in Path(slabwire.__path__[0]).glob("*/__init__.py")}
    assert folders == searched


@pytest.mark.parametrize("count", [1, 2, 3, 16, 17, 100])
@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda each: each.name)
def test_no_line_has_two_writers(layout: Layout, count: int) -> None:
    prove(layout.place(**dict.fromkeys(layout.parameters, count)))


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda each: each.name)
def test_lines_are_as_long_as_the_pair_that_hardware_prefetches(layout: Layout) -> None:
    placed = layout.place(**dict.fromkeys(layout.parameters, 3))
    writers: dict[int, set[str]] = {}
    for place in placed.places:
        for row in range(place.rows):
            start = place.offset + row * place.stride
            for line in range(start // 128, (start + place.word.nbytes - 1) // 128 + 1):
                writers.setdefault(line, set()).add(place.writer)
    assert all(len(each) == 1 for each in writers.values())
    assert placed.nbytes % 128 == 0


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda each: each.name)
def test_the_map_names_every_word(layout: Layout) -> None:
    text = layout.describe()
    for group in layout.groups:
        for word in group.words:
            assert f" {word.name} " in text
    assert f"magic {layout.magic:016x}" in text


TWO = Group("mine", "one", (Word("a", "", "all"),)), Group("yours", "other", (Word("b", "", "all"),))


def test_two_writers_on_a_line_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout_module, "LINE_NBYTES", 8)  # placed as if a line were a word
    placed = Layout("test bad", *TWO).place()
    monkeypatch.undo()
    with pytest.raises(LayoutError, match=r"line 0 of 'test bad' has two writers: creator.* and one"):
        prove(placed)


def _moved(placed: Placed, name: str, offset: int) -> Placed:
    places = tuple(replace(each, offset=offset) if each.word.name == name else each for each in placed.places)
    return Placed(placed.layout, places, placed.nbytes)


@pytest.mark.parametrize(
    ("offset", "complaint"),
    [
        (128, "overlaps the word before"),
        (136, "has two writers: one and other"),
        (260, "is not aligned"),
        (384, "lies beyond the 384 bytes"),
    ],
)
def test_a_word_in_a_wrong_place_is_caught(offset: int, complaint: str) -> None:
    with pytest.raises(LayoutError, match=complaint):
        prove(_moved(Layout("test moved", *TWO).place(), "b", offset))


def test_words_of_odd_size_are_caught() -> None:
    odd = Group("odd", "one", (Word("a", "", "all", nbytes=4), Word("b", "", "all")))
    with pytest.raises(LayoutError, match="is not aligned"):
        prove(Layout("test odd", odd).place())


BAD: dict[str, Callable[[], Layout]] = {
    "uses a name twice": lambda: Layout("test", TWO[0], replace(TWO[1], words=TWO[0].words)),
    "has 0 bytes": lambda: Layout("test", replace(TWO[0], words=(Word("a", "", "all", nbytes=0),))),
    "rows of no words": lambda: Layout("test", replace(TWO[0], rows=0)),
    "split words": lambda: Layout("test", replace(TWO[0], aligned=4)),
    "more than 4 parameters": lambda: Layout(
        "test", *(Group(f"g{n}", "one", (Word(f"w{n}", "", "all"),), rows=f"p{n}") for n in range(5))
    ),
}


@pytest.mark.parametrize("complaint", BAD)
def test_a_declaration_that_makes_no_sense_is_refused(complaint: str) -> None:
    with pytest.raises(LayoutError, match=complaint):
        BAD[complaint]()


@pytest.mark.parametrize(
    "parameters", [{}, {"capacity": 1}, {"capacity": 0, "leases": 1}, {"capacity": 1, "leases": -1}]
)
def test_parameters_are_positive_and_complete(parameters: dict[str, int]) -> None:
    with pytest.raises(LayoutError, match="takes positive"):
        LANE.place(**parameters)


def test_the_magic_changes_with_the_declaration() -> None:
    assert Layout("test magic", *TWO).magic != Layout("test magic", TWO[0]).magic
    assert Layout("test magic", *TWO).magic == Layout("test magic", *TWO).magic


def _lines_that_changed(segment: Segment, before: bytes) -> set[int]:
    return {
        at // LINE_NBYTES for at, (old, new) in enumerate(zip(before, bytes(segment.bytes), strict=True)) if old != new
    }


def _lines_of(placed: Placed, writer: str) -> set[int]:
    lines: set[int] = set()
    for each in placed.places:
        if each.writer == writer:
            end = each.offset + (each.rows - 1) * each.stride + each.word.nbytes
            lines.update(range(each.offset // LINE_NBYTES, (end - 1) // LINE_NBYTES + 1))
    return lines


def test_each_end_of_a_lane_writes_its_own_lines_and_all_of_them() -> None:
    """The declaration says who writes; this looks at what the code writes."""
    edge = Edge()
    producer, consumer = edge.producer(), edge.consumer()
    pool = edge.pool(producer)
    for value in range(9):
        before, returned = bytes(edge.lane.bytes), bytes(edge.returns.bytes)
        send_block(producer, pool, value + 1)
        assert _lines_that_changed(edge.lane, before) <= _lines_of(edge.lane.placed, "producer")
        assert bytes(edge.returns.bytes) == returned
        before, slab_before = bytes(edge.lane.bytes), bytes(edge.slabs[1].bytes)
        consumer.available()
        _, array = receive(consumer, edge.slab(1))
        del array
        assert _lines_that_changed(edge.returns, returned) <= _lines_of(edge.returns.placed, "consumer")
        assert len(_lines_that_changed(edge.returns, returned)) == 2 + (value == 0)  # the first sets the high water
        assert bytes(edge.slabs[1].bytes) == slab_before
        returned = bytes(edge.returns.bytes)
        producer.reap()
        assert (bytes(edge.lane.bytes), bytes(edge.returns.bytes)) == (before, returned)
    edge.close()


def test_rows_that_are_handed_over_alone_have_lines_of_their_own() -> None:
    for layout, word in ((INFLIGHT, "live"), (SLAB, "payload"), (LANE, "record")):
        placed = layout.place(**dict.fromkeys(layout.parameters, 5))
        place = next(each for each in placed.places if each.word.name == word)
        assert place.offset % LINE_NBYTES == place.stride % LINE_NBYTES == 0


def test_rows_have_places_and_no_row_is_beyond_them() -> None:
    placed = Layout(
        "test rows", Group("rows", "a", (Word("x", "", "b"), Word("y", "", "b", nbytes=24)), 3, 128)
    ).place()
    assert [placed.word("x", row) for row in range(3)] == [16, 32, 48]
    assert [placed.offset("y", row) for row in range(3)] == [136, 264, 392]
    assert placed["y"] == placed.offset("y")
    for row in (-1, 3):
        with pytest.raises(LayoutError, match=rf"layout 'test rows' has 3 rows of 'x', and no row {row}"):
            placed.word("x", row)
