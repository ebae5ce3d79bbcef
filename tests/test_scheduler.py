"""The run queue against a simulated core."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from slabwire.runtime.scheduler import NEAR_NS, RunQueue


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
