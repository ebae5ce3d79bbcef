"""Gathers inputs of batched handlers until a batch is full or its first input has waited long enough. No I/O."""

from __future__ import annotations

from ..spec import BatchSpec
from .work import Work


class Batcher:
    """Batches by the number of their port; `specs` says how each is gathered. Time is an argument, in nanoseconds."""

    def __init__(self, specs: dict[int, BatchSpec]) -> None:
        self._specs = specs
        self._gathering: dict[int, list[Work]] = {}

    def __bool__(self) -> bool:
        return bool(self._gathering)

    def add(self, work: Work) -> None:
        self._gathering.setdefault(work.header.target, []).append(work)

    def remove(self, work: Work) -> None:
        """Takes an input back, if it is waiting here."""
        works = self._gathering.get(work.header.target, [])
        if work in works:
            works.remove(work)
            if not works:
                del self._gathering[work.header.target]

    def take_due(self, now_ns: int) -> list[Work]:
        """A batch that is full or has waited enough, at most `max_size` long; empty if there is none."""
        for number, works in self._gathering.items():
            size = self._specs[number].max_size
            if len(works) >= size or now_ns >= self._due_ns(number):
                del self._gathering[number]
                if works[size:]:
                    self._gathering[number] = works[size:]
                return works[:size]
        return []

    def next_due_ns(self) -> int:
        """When the next batch is due; 0 if none is gathering."""
        return min((self._due_ns(number) for number in self._gathering), default=0)

    def _due_ns(self, number: int) -> int:
        return self._gathering[number][0].started_ns + int(self._specs[number].max_wait_s * 1e9)
