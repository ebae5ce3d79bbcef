"""Whether runnable threads outnumber the cores that this one may run on."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

# A look opens a file of the kernel's: too dear for every wait.
LOOK_EVERY_NS = 5_000_000
# Of the time between two looks: above this, somebody else had the core while this thread could have run. Two threads on
# one core come to 0.5, three on two to 0.33; waking up on an idle core to less than 0.1.
CONTENDED_SHARE = 0.2
# A thread that stops spinning frees the core, and sees no contention any more. So it tries again, and more rarely each
# time that fails.
_FIRST_HOLD_NS = 20_000_000
_LONGEST_HOLD_NS = 1_000_000_000


def run_delay() -> tuple[int, int]:
    """The calling thread, and for how many nanoseconds in all it was runnable and had no core; (0, 0) if unknown.

    The second field of /proc/thread-self/schedstat (Linux, Documentation/scheduler/sched-stats.rst).
    """
    try:
        with open("/proc/thread-self/schedstat", "rb", buffering=0) as schedstat:
            return threading.get_native_id(), int(schedstat.read(64).split()[1])
    except (OSError, IndexError, ValueError):
        return os.getpid(), 0


class Contention:
    """What one waiting thread has learned of it. Time is an argument, in nanoseconds."""

    def __init__(self, read: Callable[[], tuple[int, int]] = run_delay) -> None:
        self._read = read
        self._thread = self._delay = self._looked_ns = 0
        self._until_ns = self._hold_ns = 0
        self.found = 0  # how often

    def is_there(self, now_ns: int) -> bool:
        """Whether somebody else needs the core. Looks at most once in `LOOK_EVERY_NS`."""
        if now_ns - self._looked_ns >= LOOK_EVERY_NS:
            self._look(now_ns)
        return now_ns < self._until_ns

    def _look(self, now_ns: int) -> None:
        thread, delay = self._read()
        elapsed, waited = now_ns - self._looked_ns, delay - self._delay
        is_known = thread == self._thread
        self._thread, self._delay, self._looked_ns = thread, delay, now_ns
        if not is_known:
            return
        if waited > CONTENDED_SHARE * elapsed:
            self.found += 1
            self._hold_ns = min(max(2 * self._hold_ns, _FIRST_HOLD_NS), _LONGEST_HOLD_NS)
            self._until_ns = now_ns + self._hold_ns
        elif now_ns - elapsed >= self._until_ns:
            self._hold_ns = 0  # all of that time it was free to spin
