"""Taking a lock in such a way that an interrupt cannot leave it locked for ever."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from threading import Lock

_AT_ONCE = (False,)
_WAITING = (True,)


def attempt(lock: Lock, wait_s: float = 0.0) -> Iterator[bool]:
    """What tries once, for `wait_s` seconds (-1: for ever), to take the lock, when it is added to a list:
    `got += attempt(lock)` inside a `try` whose `finally` releases the lock `if True in got`.

    An exception that a signal's handler raises, KeyboardInterrupt for one, may come after any call. Right after
    `lock.acquire()` it would leave nobody to release the lock. Here the one addition takes the lock and notes it: that
    is all in C, and no handler runs in the middle of it.
    """
    return map(lock.acquire, _WAITING, (wait_s,)) if wait_s else map(lock.acquire, _AT_ONCE)


def with_lock(lock: Lock, then: Callable[[], object], wait_s: float = 0.0) -> bool:
    """Calls `then` with the lock, if that can be taken within `wait_s` seconds (-1: for ever); whether it was."""
    got: list[bool] = []
    try:
        got += attempt(lock, wait_s)
        if got[0]:
            then()
        return got[0]
    finally:
        if True in got:
            lock.release()


def attempts_at_once(lock: Lock) -> Callable[[], Iterator[bool]]:
    """What gives `attempt(lock)` each time it is called, at the price of no Python call."""
    return partial(map, lock.acquire, _AT_ONCE)
