"""Many streams: that every way carries each item to its own socket, and that the bench says what it measured."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec

import pytest
from click import BadParameter

from slabwire.bench.harness.contestant import BenchError
from slabwire.bench.harness.load import Load, loads_of
from slabwire.bench.harness.party import Party
from slabwire.bench.harness.peers import importable
from slabwire.bench.harness.process import descendants
from slabwire.bench.topologies.streams import _WAYS
from slabwire.bench.ways.many_streams.item import ITEM_NBYTES, made_ns, mark_of, stamp_of
from slabwire.bench.ways.many_streams.sink import SinkProcess, connected
from slabwire.bench.ways.many_streams.visit import visit_cancel, visit_steps
from slabwire.bench.ways.many_streams.way import Way

WAYS, LEFT_OUT = importable(_WAYS)
LOAD = Load(6, 20.0)


def test_streams_are_read() -> None:
    assert loads_of("100x5, 1000x2.5,100x5") == (Load(100, 5.0), Load(1000, 2.5))


@pytest.mark.parametrize("text", ["", "100", "0x5", "5x0", "10x1001", "1000000x5", "100x5,"])
def test_streams_that_are_none(text: str) -> None:
    with pytest.raises(BadParameter, match="is not so many streams"):
        loads_of(text)


def test_an_item_says_when_it_was_made() -> None:
    item = stamp_of(12_345) + mark_of(7)
    assert (made_ns(item), len(item)) == (12_345, ITEM_NBYTES)


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
def test_a_visit_counts_every_item(way: type[Way]) -> None:
    figures = visit_steps(way, LOAD, 0.2)
    assert (figures.items, figures.errors) == (6 * 4, 0)
    assert len(figures.latencies_us) == figures.items  # few streams are all timed
    assert min(figures.latencies_us) > 0
    assert figures.cpu_us() > figures.cpu_us(writes=False) > 0
    assert set(figures.cpu_ns) >= ({"both"} if "both" in figures.cpu_ns else {"source", "reader"})
    assert figures.took_ns >= 0.2e9


@pytest.mark.parametrize("way", [way for way in WAYS if way.pauses], ids=lambda way: way.name)
def test_one_stream_is_not_read(way: type[Way]) -> None:
    figures = visit_steps(way, LOAD, 0.2, paused=True)
    assert (figures.items, figures.errors) == (5 * 4, 0)


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
def test_all_are_cancelled_and_begin_anew(way: type[Way]) -> None:
    quiet_us, anew_us, items = visit_cancel(way, LOAD)
    assert 0 < quiet_us < anew_us
    assert items == 6 * 2


def test_an_item_by_a_wrong_socket_is_noticed() -> None:
    with SinkProcess() as sink, connected(sink.path, 1) as one, connected(sink.path, 2) as two:
        right = [(stamp_of(5) + mark_of(number)).encode() for number in (1, 2)]
        one.sendall(right[0] * 3)
        two.sendall(right[1] + right[0])
        assert sink.came() == (4, ITEM_NBYTES)


def test_a_party_that_fails_says_why() -> None:
    party = Party("ways.many_streams.queues:Both", pace=5.0, address="nowhere")
    try:
        assert party.pid in descendants(os.getpid())
        with pytest.raises(BenchError, match="has no attribute 'writer'"):
            party.ask("wrote")
        party._process.kill()
        with pytest.raises(BenchError, match="has ended before it could do 'wrote'"):
            party.ask("wrote")
    finally:
        party.close(now=False)


@pytest.mark.long
@pytest.mark.timeout(600)
def test_the_bench_sets_all_ways_beside_each_other() -> None:
    arguments = ("bench", "streams", "--quick", "--streams", "8x10", "--format", "json")
    done = subprocess.run(
        [sys.executable, "-m", "slabwire", *arguments], capture_output=True, text=True, check=True, timeout=580
    )
    document = json.loads(done.stdout)
    assert set(document["left_out"]) == ({"grpc"} if find_spec("grpc") is None else set())
    names = {way.name for way in WAYS}
    assert {each["contestant"] for each in document["figures"]["items"]} == names
    for each in document["figures"]["items"]:
        assert (each["streams"], each["errors"]) == (8, 0)
        assert each["items_a_second"] <= 80
        assert each["cpu_us"] > each["cpu_us_without_writes"] > 0
        assert each["latency_p99_us"] >= each["latency_p50_us"] > 0
    found = {each["case"]: each for each in document["results"]}
    assert len(found) == 5
    assert all(len(each["rounds_us"]) == 2 and each["verified"] >= each["samples"] for each in document["results"])
