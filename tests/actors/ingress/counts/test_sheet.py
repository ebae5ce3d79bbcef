"""Counters with closed sets of labels, and how several rows of them are added up."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from slabwire.actors.ingress.counts.sheet import OTHER, Row, Sheet

Samples = dict[tuple[str, ...], float]


def samples(sheet: Sheet, *rows: Row) -> Samples:
    return {
        (family.name + suffix, *labels.values()): value
        for family in sheet.families(rows)
        for suffix, labels, value in family.samples
    }


def own(sheet: Sheet, replica: int = 0, *, is_here: bool = True) -> Row:
    return Row(replica, list(sheet.numbers), is_here)


def test_a_value_that_was_not_declared_counts_as_another() -> None:
    sheet = Sheet()
    counter = sheet.counter("c", "C.", {"a": ("x", OTHER), "b": ("1", OTHER)})
    sheet.lie_in([0.0] * sheet.length)
    for labels in (("x", "1"), ("y", "1"), ("x", "2"), ("z" * 1000, "3")):
        counter.inc(*labels)
    assert sheet.length == 4
    assert samples(sheet, own(sheet)) == {
        ("c_total", "x", "1"): 1,
        ("c_total", OTHER, "1"): 1,
        ("c_total", "x", OTHER): 1,
        ("c_total", OTHER, OTHER): 1,
    }


def test_counters_go_on_where_a_predecessor_was_and_gauges_begin_anew() -> None:
    numbers = [0.0] * 8
    for expected in (1.0, 2.0):
        sheet = Sheet()
        counter, gauge = sheet.counter("c", "C."), sheet.gauge("g", "G.")
        seconds = sheet.histogram("h", "H.", (1.0,))
        sheet.lie_in(numbers)
        assert samples(sheet, own(sheet))["g",] == 0
        counter.inc()
        gauge.set(7)
        seconds.observe(0.5)
        assert samples(sheet, own(sheet))["c_total",] == expected
        assert samples(sheet, own(sheet))["h_count",] == expected
        assert samples(sheet, own(sheet))["g",] == 7


def test_what_is_shown_of_replicas_by_kind() -> None:
    sheet = Sheet()
    counter, gauge = sheet.counter("c", "C."), sheet.gauge("g", "G.")
    share, most = sheet.counter("s", "S.", by_replica=True), sheet.gauge("m", "M.", by_replica=True)
    unused = sheet.counter("u", "U.", {"k": ("a", "b")}, shows_unused=False)
    sheet.lie_in([0.0] * sheet.length)
    counter.inc(by=3)
    gauge.set(2)
    share.inc()
    most.set(5)
    unused.inc("b")
    seen = samples(sheet, own(sheet, 0), own(sheet, 1, is_here=False), own(sheet, 2))
    assert seen == {
        ("c_total",): 9,
        ("g",): 4,
        ("s_total", "0"): 1,
        ("s_total", "1"): 1,
        ("s_total", "2"): 1,
        ("m", "0"): 5,
        ("m", "2"): 5,
        ("u_total", "b"): 3,
    }


@given(st.lists(st.lists(st.sampled_from([0.0, 0.5, 1.0, 1.5, 2.0, 9.0]), max_size=20), min_size=1, max_size=4))
def test_histograms_add_up(seen_by_each: list[list[float]]) -> None:
    sheet, rows = Sheet(), []
    seconds = sheet.histogram("h", "H.", (1.0, 2.0))
    for replica, seen in enumerate(seen_by_each):
        sheet.lie_in([0.0] * sheet.length)
        for each in seen:
            seconds.observe(each)
        rows.append(own(sheet, replica))
    every = [each for seen in seen_by_each for each in seen]
    assert samples(sheet, *rows) == {
        ("h_bucket", "1"): sum(each <= 1 for each in every),
        ("h_bucket", "2"): sum(each <= 2 for each in every),
        ("h_bucket", "+Inf"): len(every),
        ("h_sum",): sum(every),
        ("h_count",): len(every),
    }
