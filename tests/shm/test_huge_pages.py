"""Huge pages: asked for where an actor wants them, and said where the kernel gives none."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from slabwire import Graph, GraphError
from slabwire.cli.doctor.examination import judge_huge_pages
from slabwire.shm.huge_pages import HugePages, huge_nbytes, obstacle, page_nbytes
from slabwire.shm.segment import Segment
from slabwire.shm.slab import SLAB
from stage import Loans


@pytest.fixture
def segment() -> Iterator[Segment]:
    """8 MiB, of which no page is taken yet."""
    made = Segment.create(SLAB, "a slab", reserve=False, blocks=1, payload_lines=1 << 16)
    yield made
    made.close()


def facts_of(mark: str, pid: int | str = "self") -> list[dict[str, str]]:
    """What the kernel says of the mappings whose line, of addresses and name, contains the mark."""
    found: list[dict[str, str]] = []
    is_one = False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        key, _, value = line.partition(" ")
        if not key.endswith(":"):
            is_one = mark in line
            found += [{}] if is_one else []
        elif is_one:
            found[-1][key] = value.strip()
    return found


def facts_of_segment(segment: Segment) -> dict[str, str]:
    (facts,) = facts_of(f"{segment.address:x}-")
    return facts


def test_all_pages_are_taken_and_mapped_when_a_segment_is_reserved(segment: Segment) -> None:
    before = facts_of_segment(segment)
    assert int(before["Rss:"].split()[0]) <= 64
    segment.reserve()
    after = facts_of_segment(segment)
    assert int(after["Rss:"].split()[0]) * 1024 >= segment.nbytes
    assert "hg" not in after["VmFlags:"].split(), "nobody has asked"


def test_one_that_asks_is_advised_and_told_once_where_the_kernel_gives_none(segment: Segment) -> None:
    told: list[str] = []
    pages = HugePages(told.append)
    for _ in range(2):
        pages.reserve(segment)
    facts = facts_of_segment(segment)
    assert "hg" in facts["VmFlags:"].split()
    assert int(facts["Rss:"].split()[0]) * 1024 >= segment.nbytes
    mapped = int(facts["ShmemPmdMapped:"].split()[0]) * 1024
    assert huge_nbytes(segment) == mapped
    assert len(told) == (mapped == 0)
    if obstacle() is not None:
        assert str(obstacle()) in told[0]


def test_small_segments_are_no_ground_for_complaint() -> None:
    told: list[str] = []
    small = Segment.create(SLAB, "a slab", reserve=False, blocks=1, payload_lines=1 << 13)
    HugePages(told.append).reserve(small)
    small.close()
    assert told == []


@pytest.mark.parametrize(
    ("general", "special", "why"),
    [
        ("always within_size advise [never] deny force", None, "/shmem_enabled says 'never'"),
        ("always within_size [advise] never deny force", None, None),
        ("[always] within_size advise never deny force", "always [inherit] within_size advise never", None),
        ("always within_size [advise] never deny force", "always inherit within_size advise [never]", "2048kB"),
        ("always within_size advise [never] deny force", "always inherit within_size [advise] never", None),
        ("always within_size advise never [deny] force", "always inherit within_size [advise] never", "says 'deny'"),
        (None, None, "this kernel has none for shared memory"),
    ],
)
def test_the_settings_of_the_kernel(tmp_path: Path, general: str | None, special: str | None, why: str | None) -> None:
    folder = tmp_path / "sys/kernel/mm/transparent_hugepage"
    (folder / "hugepages-2048kB").mkdir(parents=True)
    for file, text in ((folder / "shmem_enabled", general), (folder / "hugepages-2048kB/shmem_enabled", special)):
        if text is not None:
            file.write_text(text)
    found = obstacle(tmp_path)
    assert (found is None) == (why is None)
    assert why is None or why in str(found)
    finding = judge_huge_pages(found)
    assert finding.state == ("note" if why else "ok")
    assert bool(finding.fix) == bool(why)
    assert page_nbytes(tmp_path) == 2 << 20


def test_an_actor_gets_them_and_its_neighbour_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLABWIRE_RUN_DIR", str(tmp_path / "run"))
    graph = Graph("huge")
    graph.expose(graph.add(Loans, name="large", huge_pages=True).filled, graph.add(Loans, name="plain").filled)
    with graph.run() as running:
        arrays = [
            running.client.call(f"{each}.filled", 1.0, 3_000_000) for each in ("large", "plain") for _ in range(9)
        ]
        assert {float(each[-1]) for each in arrays} == {1.0}
        flags: dict[str, Any] = {
            worker["name"]: {
                "hg" in each["VmFlags:"].split() for each in facts_of("memfd:slabwire:slab", worker["pid"])
            }
            for worker in running.status()["workers"]
        }
        assert flags == {"large": {True}, "plain": {False}}
        log = (tmp_path / "run/huge/logs/large.log").read_text()
        assert log.count("huge pages were asked for") == (obstacle() is not None)
        assert "huge pages" not in (tmp_path / "run/huge/logs/plain.log").read_text()


def test_a_setting_that_is_none() -> None:
    graph = Graph("huge")
    graph.add(Loans, huge_pages="yes")  # type: ignore[arg-type]
    with pytest.raises(GraphError, match="huge_pages='yes' must be True or False"):
        graph.validate()
