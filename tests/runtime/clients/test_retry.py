"""When a call is made again, and after which pauses."""

from __future__ import annotations

import pytest

import slabwire
from slabwire import Retry
from slabwire.runtime.clients.retry import Attempts, can_repeat, key_of, retry_of
from slabwire.runtime.errors import ClientClosed, mark_not_begun

S = 1_000_000_000


def test_pauses_double_up_to_the_longest() -> None:
    retry = Retry(times=9, first_s=0.1, most_s=1.0, jitter=0.5)
    assert [retry.pause_s(number, 0.0) for number in range(1, 7)] == [0.1, 0.2, 0.4, 0.8, 1.0, 1.0]
    assert retry.pause_s(1, 1.0) == 0.05
    assert retry.pause_s(10_000, 0.0) == 1.0


def test_attempts_end_by_number_and_by_deadline() -> None:
    passing = mark_not_begun(slabwire.Overloaded("full"))
    attempts = Attempts(Retry(2, first_s=1.0, most_s=8.0, jitter=0.0), "", 0)
    assert [attempts.pause_s(passing, 0) for _ in range(3)] == [1.0, 2.0, None]
    attempts = Attempts(Retry(9, first_s=1.0, most_s=8.0, jitter=0.0), "", 4 * S)
    assert [attempts.pause_s(passing, now) for now in (0, 1 * S, 3 * S)] == [1.0, 2.0, None]
    attempts = Attempts(Retry(1, first_s=1.0, jitter=1.0), "", 0, chance=lambda: 0.25)
    assert attempts.pause_s(passing, 0) == 0.75


@pytest.mark.parametrize(
    ("error", "plain", "keyed"),
    [
        (slabwire.Disconnected("in flight"), False, True),
        (mark_not_begun(slabwire.Disconnected("nobody there")), True, True),
        (ClientClosed("by its owner"), False, False),
        (slabwire.Draining("stopping"), True, True),
        (slabwire.Overloaded("relayed by a handler"), False, True),
        (mark_not_begun(slabwire.Overloaded("not taken")), True, True),
        (slabwire.EdgeFull("behind the entry"), False, True),
        (slabwire.Interrupted("died"), False, True),
        (slabwire.DeadLetter("thrice"), False, False),
        (slabwire.DeadlineExceeded("late"), False, False),
        (slabwire.HandlerError("raised"), False, False),
        (mark_not_begun(slabwire.UnknownPort("typo")), False, False),
    ],
)
def test_what_is_asked_again(error: slabwire.SlabwireError, plain: bool, keyed: bool) -> None:
    assert (can_repeat(error, is_keyed=False), can_repeat(error, is_keyed=True)) == (plain, keyed)


def test_what_users_may_say() -> None:
    assert retry_of(0) is retry_of(Retry(0)) is retry_of(None) is None
    assert retry_of(3) == Retry(times=3)
    assert retry_of(None, Retry(2)) == Retry(2)
    assert retry_of(0, Retry(2)) is None
    assert key_of(None) == key_of(False) == ""
    assert key_of("order-7") == "order-7"
    assert len({key_of(True), key_of(True)}) == 2


@pytest.mark.parametrize("retries", [-1, 1.5, True, "3"])
def test_what_is_no_number_of_times(retries: object) -> None:
    with pytest.raises(slabwire.MessageError, match="times"):
        retry_of(retries)  # type: ignore[arg-type]


@pytest.mark.parametrize("key", ["", "x" * 129, 7, b"bytes", "\ud800"])
def test_what_is_no_key(key: object) -> None:
    with pytest.raises(slabwire.MessageError, match="idempotency_key"):
        key_of(key)  # type: ignore[arg-type]


@pytest.mark.parametrize("pauses", [{"first_s": -1.0}, {"most_s": float("nan")}, {"jitter": 2.0}])
def test_pauses_that_are_none(pauses: dict[str, float]) -> None:
    with pytest.raises(slabwire.MessageError, match="Retry"):
        Retry(1, **pauses)
