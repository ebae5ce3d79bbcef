"""How often and how soon something is started again, with time and chance as arguments."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slabwire.runtime.supervision.restart import FIRST_DELAY_S, LONGEST_DELAY_S, Allowance, delay_s, is_wanted


@pytest.mark.parametrize(
    ("restart", "failed", "again"),
    [
        ("permanent", True, True),
        ("permanent", False, True),
        ("transient", True, True),
        ("transient", False, False),
        ("temporary", True, False),
        ("temporary", False, False),
    ],
)
def test_who_is_started_again(restart: str, failed: bool, again: bool) -> None:
    assert is_wanted(restart, failed=failed) is again  # type: ignore[arg-type]


@given(st.lists(st.floats(0, 1000), max_size=60))
def test_never_more_than_the_intensity_within_the_window(moments: list[float]) -> None:
    allowance = Allowance(intensity=5, within_s=10)
    granted: list[float] = []
    for now in sorted(moments):
        is_granted = allowance.admit("a", now)
        assert is_granted == (len([each for each in granted if each > now - 10]) < 5)
        granted += [now] * is_granted


def test_what_is_forgiven_does_not_count() -> None:
    allowance = Allowance(intensity=3)
    assert all(allowance.admit(name, 0.0) for name in "aba")
    assert not allowance.admit("b", 0.0)
    assert (allowance.count(), allowance.count("a")) == (3, 2)
    allowance.forgive("a")
    assert allowance.admit("b", 0.0)
    allowance.clear()
    assert allowance.count() == 0


def test_the_first_restart_is_immediate_and_the_delay_doubles() -> None:
    assert delay_s(0, 0.0) == delay_s(0, 1.0) == 0.0
    assert [delay_s(n, 0.0) for n in range(1, 5)] == [FIRST_DELAY_S * 2**n for n in range(4)]
    assert delay_s(10_000, 0.0) == LONGEST_DELAY_S


@given(st.integers(1, 10_000), st.floats(0, 1))
def test_chance_takes_up_to_half_of_a_delay(earlier: int, draw: float) -> None:
    full = delay_s(earlier, 0.0)
    assert full / 2 <= delay_s(earlier, draw) <= full <= LONGEST_DELAY_S
