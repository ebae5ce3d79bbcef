"""How much of everything the ingress takes on, and the places that requests in flight hold."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, fields

from ....runtime.errors import GraphError, Overloaded

# A client told to come back later than this would rather give up.
_LONGEST_RETRY_S = 60
# How much the latest request changes the mean time that a place is held.
_WEIGHT = 0.2


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one ingress process. Raises GraphError for one that is not above 0.

    `requests`: answers in flight, those that wait included; a request for n choices counts n times. The default leaves
    some of an actor's 64 places to other callers.
    `body_bytes`: of one body. `body_values`: strings, numbers, arrays and objects in it; the default is enough for as
    many messages as are taken, each with a name and a part of text. `reading_bytes`: of all that are being read at a
    time, and no less than one may have.
    `request_timeout_s`: from the whole request to the end of its answer. `body_timeout_s`: for the request to arrive.
    `ping_every_s`: the longest silence on a stream. `retry_after_s`: the least that a client turned away is told to
    wait.
    """

    requests: int = 48
    body_bytes: int = 4 << 20
    body_values: int = 1 << 14
    reading_bytes: int = 32 << 20
    body_timeout_s: float = 30.0
    request_timeout_s: float = 600.0
    ping_every_s: float = 5.0
    retry_after_s: int = 1

    def __post_init__(self) -> None:
        wrong = [each.name for each in fields(self) if not getattr(self, each.name) > 0]
        if wrong:
            raise GraphError(*(f"ingress: {name} is {getattr(self, name)}; it must be above 0" for name in wrong))

    @property
    def all_bodies_bytes(self) -> int:
        return max(self.body_bytes, self.reading_bytes)


class Place:
    """`count` places that one request holds, since `since_s`."""

    __slots__ = ("_places", "count", "since_s")

    def __init__(self, places: Places, count: int, since_s: float) -> None:
        self.count = count
        self.since_s = since_s
        self._places = places

    def give_back(self) -> None:
        """They are free again. Idempotent."""
        self._places.give_back(self)


class Places:
    """Counts what is in flight; one event loop. `clock` gives seconds; `shown` is told of every change."""

    def __init__(
        self,
        limits: Limits,
        clock: Callable[[], float] = time.monotonic,
        shown: Callable[[int], object] = lambda _: None,
    ) -> None:
        self.taken = 0
        self._limits = limits
        self._shown = shown
        self._clock = clock
        self._held_s: float | None = None  # the mean, of those that have ended
        self._begun: dict[Place, None] = {}  # those in flight, the oldest first

    @property
    def retry_after_s(self) -> int:
        """When a place should be free again: the time that one is held, shared by all of them. Whole seconds."""
        expected = math.ceil(self._expected_s() / self._limits.requests)
        return max(self._limits.retry_after_s, min(expected, _LONGEST_RETRY_S))

    def _expected_s(self) -> float:
        """How long a place is held; before any was given back, at least as long as the oldest is held already."""
        if self._held_s is not None:
            return self._held_s
        return self._clock() - next(iter(self._begun)).since_s if self._begun else 0.0

    def check(self, wanted: int = 1) -> None:
        """Raises Overloaded where fewer places are free than wanted."""
        if self.taken + wanted > self._limits.requests:
            raise Overloaded(
                f"This server has {self.taken} of at most {self._limits.requests} answers in flight; "
                f"try again in {self.retry_after_s} s."
            )

    def take(self, wanted: int) -> Place:
        """Takes so many, until `Place.give_back`. Raises Overloaded."""
        self.check(wanted)
        self._change(wanted)
        place = Place(self, wanted, self._clock())
        self._begun[place] = None
        return place

    def give_back(self, place: Place) -> None:
        """What `Place.give_back` does."""
        if place in self._begun:
            self._change(-place.count)
            del self._begun[place]
            self._note(self._clock() - place.since_s)

    def _change(self, by: int) -> None:
        self.taken += by
        self._shown(self.taken)

    def _note(self, held_s: float) -> None:
        mean_s = held_s if self._held_s is None else self._held_s
        self._held_s = mean_s + _WEIGHT * (held_s - mean_s)
