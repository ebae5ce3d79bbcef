"""Moves a live process to other CPUs: every thread that it has, and by inheritance those that it will have."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection

# A thread that is born while its siblings are moved inherits what its parent still had, so all are looked at again.
_MOST_PASSES = 16


def repin(pid: int, cpus: Collection[int]) -> int:
    """Pins all threads of a process, which may be busy, asleep or stopped; returns how many there were.

    A thread that was pinned to a part of the process's CPUs (one of a pool, each on a core of its own) gets the
    corresponding part of the new ones. Raises OSError where the kernel refuses the CPUs; a process that has ended
    meanwhile has no threads.
    """
    before = _affinity(pid)
    if before is None:
        return 0
    seats = counterparts(before, cpus)
    moved: set[int] = set()
    for _ in range(_MOST_PASSES):
        fresh = [thread for thread in _threads(pid) if thread not in moved]
        if not fresh:
            break
        for thread in fresh:
            _move(thread, seats, set(cpus), is_late=bool(moved))
        moved.update(fresh)
    return len(moved)


def counterparts(before: Collection[int], after: Collection[int]) -> dict[int, int]:
    """Which new CPU stands for each old one: both in order, so hardware threads of one core stay together."""
    new = sorted(after)
    return {cpu: new[index % len(new)] for index, cpu in enumerate(sorted(before))}


def _move(thread: int, seats: dict[int, int], after: set[int], *, is_late: bool) -> None:
    mask = _affinity(thread)
    if mask is None or (is_late and mask <= after):  # its parent had been moved before it was born
        return
    is_part = mask < set(seats)
    with contextlib.suppress(ProcessLookupError):
        os.sched_setaffinity(thread, {seats[cpu] for cpu in mask} if is_part else after)


def _affinity(thread: int) -> set[int] | None:
    try:
        return set(os.sched_getaffinity(thread))
    except ProcessLookupError:
        return None


def _threads(pid: int) -> list[int]:
    try:
        return [int(name) for name in os.listdir(f"/proc/{pid}/task")]
    except (FileNotFoundError, ProcessLookupError):
        return []
