"""The restart policy, with time as an argument."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slabwire.runtime.restart import LONGEST_DELAY_S, RestartPolicy


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
    policy = RestartPolicy(restart)  # type: ignore[arg-type]
    assert (policy.after_exit(failed=failed, now_s=0.0) is not None) is again
    assert not policy.gave_up


@given(st.lists(st.floats(0, 1000), max_size=60))
def test_never_more_than_the_intensity_within_the_window(moments: list[float]) -> None:
    policy = RestartPolicy(intensity=5, window_s=10)
    granted: list[float] = []
    for now in sorted(moments):
        delay = policy.after_exit(failed=True, now_s=now)
        recent = [each for each in granted if each > now - 10]
        assert (delay is None) == (len(recent) >= 5)
        if delay is not None:
            assert 0 <= delay <= LONGEST_DELAY_S
            granted.append(now)


def test_the_first_restart_is_immediate_and_the_delay_grows() -> None:
    policy = RestartPolicy()
    delays = [policy.after_exit(failed=True, now_s=0.0) for _ in range(10)]
    assert delays[0] == 0.0
    assert delays == sorted(each for each in delays if each is not None)
    assert policy.after_exit(failed=True, now_s=0.0) is None
    assert policy.gave_up
    policy.forgive()
    assert policy.after_exit(failed=True, now_s=0.0) == 0.0
