"""The run queue against a simulated core."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from slabwire.runtime.worker.turns import LEAD_NS, NEAR_NS, RunQueue

SIMULATED_NS = 60_000_000


def simulate(weights: dict[str, int], quantum: dict[str, int], rounds: int) -> dict[str, int]:
    """Nanoseconds that each actor got, all being ready all the time."""
    queue = RunQueue(weights)
    got = dict.fromkeys(weights, 0)
    for now in range(rounds):
        name = queue.pick(weights, {}, now)
        assert name is not None
        queue.charge(name, quantum[name])
        got[name] += quantum[name]
    return got


@given(st.lists(st.tuples(st.integers(1, 8), st.integers(1, 1000)), min_size=1, max_size=6))
def test_time_is_shared_by_weight(actors: list[tuple[int, int]]) -> None:
    weights = {f"a{i}": weight for i, (weight, _) in enumerate(actors)}
    quantum = {f"a{i}": nanoseconds for i, (_, nanoseconds) in enumerate(actors)}
    got = simulate(weights, quantum, 400)
    shares = {name: got[name] / weights[name] for name in weights}
    largest_step = max(quantum[name] / weights[name] for name in weights)
    assert max(shares.values()) - min(shares.values()) <= largest_step + 1e-6


def test_who_was_idle_does_not_save_up() -> None:
    queue = RunQueue({"busy": 1, "late": 1})
    for now in range(100):
        assert queue.pick(["busy"], {}, now) == "busy"
        queue.charge("busy", 10)
    runs = []
    for now in range(100, 110):
        name = queue.pick(["busy", "late"], {}, now)
        assert name is not None
        runs.append(name)
        queue.charge(name, 10)
    assert 4 <= runs.count("busy") <= 6


def test_a_near_deadline_goes_first() -> None:
    queue = RunQueue({"a": 1, "b": 1})
    queue.charge("b", 1_000_000)
    assert queue.pick(["a", "b"], {"b": 100 + NEAR_NS}, 100) == "b"
    assert queue.pick(["a", "b"], {"b": 101 + NEAR_NS}, 100) == "a"
    assert queue.pick([], {}, 0) is None


def test_near_deadlines_do_not_starve_others() -> None:
    queue, now, got = RunQueue({"hasty": 1, "other": 1}), 0, {"hasty": 0, "other": 0}
    while now < 100_000_000:
        name = queue.pick(["hasty", "other"], {"hasty": now + 1}, now)
        assert name is not None
        queue.charge(name, 500_000)
        got[name] += 500_000
        now += 500_000
    assert 0 < got["hasty"] - got["other"] <= LEAD_NS + 2 * 500_000


def test_waiting_counts_from_when_it_could_be_seen() -> None:
    queue = RunQueue({"long": 1, "other": 1})
    assert queue.pick(["long"], {}, 1000) == "long"
    queue.charge("long", 7000)
    assert queue.pick(["long", "other"], {}, 8000) == "other"  # it may have come as soon as the long run began
    assert queue.waited_ns == 7000
    queue.charge("other", 100)
    assert queue.pick(["long"], {}, 8100) == "long"
    assert queue.waited_ns == 100


def test_a_sleep_is_no_waiting() -> None:
    queue = RunQueue({"a": 1, "b": 1})
    assert queue.pick(["a"], {}, 1000) == "a"
    queue.charge("a", 10)
    assert queue.pick([], {}, 1010) is None
    queue.rest()
    assert queue.pick(["b"], {}, 9_000_000) == "b"
    assert queue.waited_ns == 0


@dataclass
class Simulated:
    """One actor of a simulated worker: how long its runs take, when its messages come, how soon each is due."""

    weight: int
    cost_ns: int
    every_ns: int  # 0: there is always one more
    due_after_ns: int = 0  # 0: no deadline
    arrived: list[int] = field(default_factory=list)
    got_ns: int = 0
    longest_ns: int = 0
    late: int = 0
    served: int = 0

    def deadline_ns(self) -> int:
        return self.arrived[0] + self.due_after_ns if self.due_after_ns else 0


actors = st.builds(
    Simulated,
    weight=st.integers(1, 8),
    cost_ns=st.integers(10_000, 1_000_000),
    every_ns=st.just(0) | st.integers(50_000, 20_000_000),
    due_after_ns=st.just(0) | st.integers(1, 10_000_000),
)


def work(crew: dict[str, Simulated], until_ns: int, seed: int = 0) -> None:
    """One core with these actors on it. Idle time is skipped."""
    queue, dice = RunQueue({name: each.weight for name, each in crew.items()}), random.Random(seed)
    coming = {name: dice.randrange(each.every_ns) if each.every_ns else 0 for name, each in crew.items()}
    now = 0
    while now < until_ns:
        for name, each in crew.items():
            if not each.every_ns and not each.arrived:
                each.arrived.append(now)
            while each.every_ns and coming[name] <= now:
                each.arrived.append(coming[name])
                coming[name] += each.every_ns
        ready = [name for name, each in crew.items() if each.arrived]
        chosen = queue.pick(ready, {name: crew[name].deadline_ns() for name in ready}, now)
        if chosen is None:
            queue.rest()
            now = min(coming.values())
            continue
        actor = crew[chosen]
        actor.longest_ns = max(actor.longest_ns, queue.waited_ns)
        actor.late += 0 < actor.deadline_ns() < now
        actor.arrived.pop(0)
        actor.served += 1
        actor.got_ns += actor.cost_ns
        now += actor.cost_ns
        queue.charge(chosen, actor.cost_ns)


@settings(max_examples=30, deadline=None)
@given(st.lists(actors, min_size=2, max_size=6), st.integers(0, 1000))
def test_no_ready_actor_waits_beyond_a_bound(each: list[Simulated], seed: int) -> None:
    crew = {f"a{index}": actor for index, actor in enumerate(each)}
    work(crew, SIMULATED_NS, seed)
    step = max(actor.cost_ns / actor.weight for actor in each)
    run = max(actor.cost_ns for actor in each)
    for name, actor in crew.items():
        # Whoever waits is at most a lead and a run above the level; so far each other may come, and a lead beyond that.
        others = sum(other.weight * (2 * LEAD_NS + 2 * step) for key, other in crew.items() if key != name)
        assert actor.longest_ns <= others + len(crew) * run


@settings(max_examples=30, deadline=None)
@given(st.lists(actors, min_size=2, max_size=6), st.integers(0, 1000))
def test_deadlines_or_not_time_goes_by_weight(each: list[Simulated], seed: int) -> None:
    for actor in each:
        actor.every_ns = 0  # all are ready all the time
    work({f"a{index}": actor for index, actor in enumerate(each)}, SIMULATED_NS, seed)
    shares = [actor.got_ns / actor.weight for actor in each]
    step = max(actor.cost_ns / actor.weight for actor in each)
    assert max(shares) - min(shares) <= LEAD_NS + 2 * step


@settings(max_examples=30, deadline=None)
@given(st.lists(actors, min_size=1, max_size=5), st.integers(1, 8), st.integers(0, 1000))
def test_near_deadlines_are_met_where_they_can_be(others: list[Simulated], weight: int, seed: int) -> None:
    """One message at a time, due after the longest run that may be under way: it takes less than its share."""
    for other in others:
        other.due_after_ns = 0
    total = weight + sum(other.weight for other in others)
    hasty = Simulated(weight, 100_000, 2 * 100_000 * total, due_after_ns=max(other.cost_ns for other in others) + 1)
    crew = {"hasty": hasty, **{f"a{index}": other for index, other in enumerate(others)}}
    work(crew, SIMULATED_NS, seed)
    assert hasty.served > 3
    assert hasty.late == 0
