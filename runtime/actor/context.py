"""What a handler may know about the input that it is working on."""

from __future__ import annotations

import time
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Context:
    """What a handler may know about the input that it is working on. `deadline_s` is on `time.monotonic()`'s clock.

    `cores` are the CPUs that its process is pinned to, `threads` how many its thread pools should have.
    `idempotency_key` is what the caller of this port gave, the same in each attempt; None on edges behind it.
    """

    request: int
    attempt: int
    trace: str
    actor: str
    cores: tuple[int, ...]
    deadline_s: float | None = None
    sent: int = 0
    threads: int = 1
    idempotency_key: str | None = None

    def time_left_s(self, now_s: float | None = None) -> float | None:
        """Seconds until the caller gives up, not below 0; None where it waits for ever."""
        if self.deadline_s is None:
            return None
        return max(0.0, self.deadline_s - (time.monotonic() if now_s is None else now_s))
