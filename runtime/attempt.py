"""Taking a lock in such a way that an interrupt cannot leave it locked for ever."""

from __future__ import annotations

from threading import Lock


def attempt(lock: Lock, got: list[bool], wait_s: float = 0.0) -> bool:
    """Tries for `wait_s` seconds to take the lock, and notes in `got` whether it has: the `finally` of a `try` that was
    begun before must release it if so (`if True in got`).

    An exception that a signal's handler raises, KeyboardInterrupt for one, may come after any call. Right after
    `lock.acquire()` it would leave nobody to release the lock. Here one call into C takes the lock and notes it, and no
    handler runs in the middle of that.
    """
    got.extend(map(lock.acquire, (True,), (wait_s,)))
    return got[-1]
