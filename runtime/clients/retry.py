"""When a call is made again, and how long before: errors that pass, pauses that grow, all within the call's time."""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable
from dataclasses import dataclass

from ..errors import (
    ClientClosed,
    Disconnected,
    Draining,
    EdgeFull,
    Interrupted,
    MessageError,
    Overloaded,
    SlabwireError,
)

# Errors that pass by themselves. Of the others, asking again would get the same.
_PASSING = (Disconnected, Draining, EdgeFull, Interrupted, Overloaded)
# It travels in every attempt; a UUID has 36.
LONGEST_KEY_NBYTES = 128


@dataclass(frozen=True, slots=True)
class Retry:
    """How often a call is made again at most, and the pauses before: they double from `first_s` up to `most_s`, and a
    random part of each, up to `jitter`, is left out, so that clients do not come back all at once.
    """

    times: int = 5
    first_s: float = 0.05
    most_s: float = 2.0
    jitter: float = 0.5

    def __post_init__(self) -> None:
        if isinstance(self.times, bool) or not isinstance(self.times, int) or self.times < 0:
            raise MessageError(f"Retry(times={self.times!r}): a whole number of at least 0")
        if not (self.first_s >= 0 and self.most_s >= 0 and 0 <= self.jitter <= 1):
            raise MessageError(f"{self!r}: pauses are not negative, and jitter is from 0 to 1")

    def pause_s(self, number: int, chance: float) -> float:
        """Before the `number`-th time, counted from 1; `chance` is from 0 to 1."""
        doublings = min(number - 1, 64)  # beyond which a float of any pause is over `most_s`
        return min(self.most_s, self.first_s * 2.0**doublings) * (1 - self.jitter * chance)


class Attempts:
    """Decides after each failure of one call. `retry` None: it is made once. `deadline_ns` is on CLOCK_MONOTONIC."""

    def __init__(
        self, retry: Retry | None, key: str, deadline_ns: int, chance: Callable[[], float] = random.random
    ) -> None:
        self._retry = retry
        self.key = key
        self.deadline_ns = deadline_ns
        self._chance = chance
        self._made = 0

    def pause_s(self, error: SlabwireError, now_ns: int) -> float | None:
        """The pause before the call is made again; None if the error stands."""
        retry = self._retry
        if retry is None or not can_repeat(error, is_keyed=bool(self.key)) or self._made >= retry.times:
            return None
        self._made += 1
        pause_s = retry.pause_s(self._made, self._chance())
        if self.deadline_ns and now_ns + int(pause_s * 1e9) >= self.deadline_ns:
            return None  # the error says more than a deadline that passed while we slept
        return pause_s


def can_repeat(error: SlabwireError, *, is_keyed: bool) -> bool:
    """Whether a call that ended so may be made again: the error passes, and the work either had surely not begun, or
    carries a key by which its handler knows it again.
    """
    if isinstance(error, ClientClosed) or not isinstance(error, _PASSING):
        return False
    return is_keyed or error.not_begun


def sends_once(key: str, target: str) -> None:
    """For a call that sends a stream. Raises MessageError where it has a key, since it is not made again."""
    if key:
        raise MessageError(
            f"{target} is sent a stream, which is read once: such a call is not made again, so it has no "
            "idempotency_key; leave that out"
        )


def retry_of(retries: int | Retry | None, default: Retry | None = None) -> Retry | None:
    """What `retries=` means; None for no second attempt. Raises MessageError for what is no number."""
    if retries is None:
        return default
    retry = retries if isinstance(retries, Retry) else Retry(retries)
    return retry if retry.times else None


def key_of(idempotency_key: str | bool | None) -> str:
    """What `idempotency_key=` means: True makes one; "" for none. Raises MessageError for what is no key."""
    if idempotency_key is None or idempotency_key is False:
        return ""
    if idempotency_key is True:
        return uuid.uuid4().hex
    try:
        if isinstance(idempotency_key, str) and 0 < len(idempotency_key.encode()) <= LONGEST_KEY_NBYTES:
            return idempotency_key
    except UnicodeEncodeError:
        pass
    given = str(idempotency_key)[:40]
    raise MessageError(f"idempotency_key is {given!r}; it must be a text of 1 to {LONGEST_KEY_NBYTES} bytes, or True")
