"""The tree of supervision and the order of starting and stopping, without processes."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slabwire.runtime.graph.worker_order import start_order, stop_waves
from slabwire.runtime.spec import GroupSpec, Strategy
from slabwire.runtime.supervision.restart import Allowance
from slabwire.runtime.supervision.tree import Branch, Outcome, Tree, branches

WORKERS = ("a", "b", "c", "d")


def tree(*groups: Branch, restarts: dict[str, str] | None = None, up: Sequence[str] = WORKERS) -> Tree:
    made = Tree(WORKERS, {**dict.fromkeys(WORKERS, "permanent"), **(restarts or {})}, groups)  # type: ignore[dict-item]
    for each in up:
        made.started(each)
    return made


def died(of: Tree, worker: str, now_s: float = 0.0, *, failed: bool = True) -> Outcome:
    return of.exited(worker, failed=failed, now_s=now_s, draw=0.0)


@pytest.mark.parametrize(
    ("strategy", "worker", "stop", "start"),
    [
        ("one_for_one", "b", "", "b"),
        ("rest_for_one", "a", "cb", "abc"),
        ("rest_for_one", "b", "c", "bc"),
        ("rest_for_one", "c", "", "c"),
        ("one_for_all", "a", "cb", "abc"),
        ("one_for_all", "b", "ca", "abc"),
        ("one_for_all", "c", "ba", "abc"),
    ],
)
def test_who_is_restarted_with_whom(strategy: str, worker: str, stop: str, start: str) -> None:
    made = tree(Branch("g", ("a", "b", "c"), strategy))  # type: ignore[arg-type]
    outcome = died(made, worker)
    assert (outcome.verdict, outcome.group) == ("restart", "g")
    assert (outcome.stop, outcome.start) == (tuple(stop), tuple(start))
    for each in stop:
        assert made.due(1.0) == []
        assert made.is_awaited(each)
        assert died(made, each, failed=False).verdict == "expected"
    assert made.due(1.0) == list(start)
    assert made.due(1.0) == []


def test_the_rest_are_those_named_later_also_where_they_start_earlier() -> None:
    outcome = died(tree(Branch("g", ("d", "a"), "rest_for_one")), "d")
    assert (outcome.stop, outcome.start) == (("a",), ("a", "d"))


def test_alone_each_worker_counts_for_itself() -> None:
    made = tree()
    for n, worker in itertools.product(range(10), WORKERS):
        assert died(made, worker).verdict == "restart"
        assert made.due(2.0) == [worker], n
        made.started(worker)
    outcome = died(made, "a", 29.0)
    assert (outcome.verdict, outcome.group, outcome.restarts, outcome.within_s) == ("give_up", "", 10, 30.0)
    made.started("a")
    assert died(made, "a", 31.0).verdict == "restart"


def test_members_of_a_group_count_together() -> None:
    made = tree(Branch("g", ("a", "b"), allowance=Allowance(2, 5.0)))
    assert died(made, "a").delay_s == 0.0
    assert died(made, "b").delay_s == 0.0  # the first of its own
    made.due(1.0)
    made.started("a")
    assert died(made, "a", 1.0).verdict == "give_up"
    assert died(made, "c", 1.0).verdict == "restart"


def test_a_restart_waits_longer_each_time() -> None:
    made, delays = tree(), []
    for _ in range(6):
        delays.append(died(made, "a").delay_s)
        assert made.next_due_s() == delays[-1]
        assert made.due(delays[-1] - 0.01) == []
        assert made.due(delays[-1]) == ["a"]
        made.started("a")
    assert delays == [0.0, 0.05, 0.1, 0.2, 0.4, 0.8]


def test_exhaustion_climbs_until_somebody_may_restart() -> None:
    inner = Branch("inner", ("a", "b"), allowance=Allowance(0))
    outer = Branch("outer", ("inner", "c"), "rest_for_one", Allowance(1, 10.0))
    made = tree(inner, outer)
    assert made.groups_of("a") == ["inner", "outer"]
    assert made.groups_of("d") == []
    outcome = died(made, "b")
    assert (outcome.verdict, outcome.group, outcome.strategy) == ("restart", "outer", "rest_for_one")
    assert (outcome.stop, outcome.start) == (("c", "a"), ("a", "b", "c"))
    for each in outcome.stop:
        died(made, each)
    for each in made.due(1.0):
        made.started(each)
    outcome = died(made, "a", 5.0)
    assert (outcome.verdict, outcome.group, outcome.restarts) == ("give_up", "outer", 1)


def test_a_group_that_is_restarted_begins_afresh() -> None:
    inner = Branch("inner", ("a",), allowance=Allowance(1))
    made = tree(inner, Branch("outer", ("inner", "b"), allowance=Allowance(5)))
    groups = []
    for _ in range(4):
        groups.append(died(made, "a").group)
        made.due(10.0)
        made.started("a")
    assert groups == ["inner", "outer", "inner", "outer"]


def test_temporary_members_are_stopped_and_stay_so() -> None:
    made = tree(Branch("g", ("a", "b", "c"), "one_for_all"), restarts={"b": "temporary", "c": "transient"})
    assert died(made, "b").verdict == "ended"
    assert died(made, "c", failed=False).verdict == "ended"
    made.started("b")
    outcome = died(made, "a")
    assert (outcome.stop, outcome.start) == (("b",), ("a", "c"))  # the transient one had only ended


def test_who_dies_while_it_waits_for_others_starts_once() -> None:
    made = tree(Branch("g", ("a", "b", "c"), "one_for_all"))
    assert died(made, "a").stop == ("c", "b")
    assert died(made, "c").verdict == "expected"
    assert made.due(9.0) == []
    assert died(made, "b").verdict == "expected"
    assert made.due(9.0) == ["a", "b", "c"]


def test_rounds_that_meet_become_one() -> None:
    made = tree(Branch("g", ("a", "b", "c"), "rest_for_one"))
    assert died(made, "c").stop == ()
    assert died(made, "a", 0.2).stop == ("b",)
    assert made.due(9.0) == []
    died(made, "b")
    assert made.due(9.0) == ["a", "b", "c"]


def test_a_wanted_restart_does_not_count() -> None:
    made = tree()
    for _ in range(30):
        assert made.renew("a", 0.0)
        assert not made.renew("a", 0.0)  # it was told already
        assert died(made, "a", failed=False).verdict == "expected"
        assert made.due(0.0) == ["a"]
        made.started("a")
    assert not tree(up="bcd").renew("a", 0.0)  # nobody to tell


def test_who_cannot_be_started_is_tried_again() -> None:
    made = tree()
    died(made, "a")
    assert made.due(0.0) == ["a"]
    made.postpone("a", 1.0)
    assert made.due(0.9) == []
    assert made.due(1.0) == ["a"]


def test_groups_hold_the_workers_of_their_actors() -> None:
    groups = [GroupSpec("g", ("x", "y")), GroupSpec("h", ("g", "z"), "one_for_all", 3, 4.0)]
    made = branches(groups, {"x": ["x[0]", "x[1]"], "y": ["shared"], "z": ["shared2"]})
    assert [each.children for each in made] == [("x[0]", "x[1]", "shared"), ("g", "shared2")]
    assert made[1].allowance == Allowance(3, 4.0)


# -- any tree, any deaths --------------------------------------------------------------------------------------------

STRATEGIES: tuple[Strategy, ...] = ("one_for_one", "rest_for_one", "one_for_all")
SHAPES: tuple[dict[str, tuple[str, ...]], ...] = (
    {},
    {"g": ("a", "b", "c", "d")},
    {"g": ("a", "b"), "h": ("c", "d")},
    {"g": ("b", "a"), "h": ("d", "g"), "i": ("h", "c")},
)


@st.composite
def trees(draw: st.DrawFn) -> Tree:
    groups = [
        Branch(name, children, draw(st.sampled_from(STRATEGIES)), Allowance(draw(st.integers(0, 3)), 10.0))
        for name, children in draw(st.sampled_from(SHAPES)).items()
    ]
    restarts = {each: draw(st.sampled_from(["permanent", "permanent", "transient", "temporary"])) for each in WORKERS}
    return Tree(WORKERS, restarts, groups)  # type: ignore[arg-type]


@settings(max_examples=300, deadline=None)
@given(trees(), st.lists(st.tuples(st.sampled_from(WORKERS), st.booleans(), st.floats(0, 3)), max_size=40))
def test_nobody_is_started_twice_and_nobody_is_forgotten(made: Tree, deaths: list[tuple[str, bool, float]]) -> None:
    """A shell that obeys: stops whom it is told to, starts whom it is told to; workers die in between."""
    up, told, for_good, now = set(WORKERS), set[str](), set[str](), 0.0
    for each in WORKERS:
        made.started(each)

    def start_due() -> None:
        for each in made.due(now):
            assert each not in up, "started twice"
            up.add(each)
            for_good.discard(each)
            made.started(each)

    for worker, failed, later in deaths:
        now += later
        if worker in up:
            up.discard(worker)
            outcome = made.exited(worker, failed=failed, now_s=now, draw=0.5)
            if outcome.verdict == "give_up":
                return
            assert (outcome.verdict == "expected") == (worker in told)
            told.discard(worker)
            assert set(outcome.stop) <= up - told
            told.update(outcome.stop)
            if outcome.verdict == "restart":
                for_good.update(set(outcome.stop) - set(outcome.start))
                assert worker in outcome.start
            elif outcome.verdict == "ended":
                for_good.add(worker)
        start_due()
    for worker in sorted(told):
        up.discard(worker)
        assert made.exited(worker, failed=False, now_s=now, draw=0.5).verdict == "expected"
    now += 10
    start_due()
    assert made.next_due_s() is None
    assert up | for_good == set(WORKERS)


# -- the order -------------------------------------------------------------------------------------------------------


def test_targets_start_before_their_sources_and_stop_after_them() -> None:
    targets = {"in": ["left", "right"], "left": ["out"], "right": ["out"], "out": [], "apart": []}
    order = start_order(targets)
    assert order == ["out", "left", "right", "in", "apart"]
    assert stop_waves(order, targets) == [["apart", "in"], ["right", "left"], ["out"]]


def test_a_circle_is_entered_where_it_was_added_first() -> None:
    targets = {"a": ["b"], "b": ["c"], "c": ["a", "c"]}
    assert start_order(targets) == ["c", "b", "a"]
    assert stop_waves(["c", "b", "a"], targets) == [["a"], ["b"], ["c"]]


def test_a_long_chain_is_no_deep_recursion() -> None:
    targets = {str(n): [str(n + 1)] for n in range(5000)} | {"5000": []}
    assert start_order(targets) == [str(n) for n in range(5000, -1, -1)]


@given(st.dictionaries(st.sampled_from("abcdef"), st.lists(st.sampled_from("abcdef"), max_size=4)))
def test_each_worker_has_one_place_in_any_graph(edges: dict[str, list[str]]) -> None:
    targets = {each: edges.get(each, []) for each in "abcdef"}
    order = start_order(targets)
    waves = stop_waves(order, targets)
    assert sorted(order) == sorted(each for wave in waves for each in wave) == list("abcdef")
    wave_of = {each: number for number, wave in enumerate(waves) for each in wave}
    for source, others in targets.items():
        for target in others:
            if order.index(target) < order.index(source):
                assert wave_of[source] < wave_of[target]
