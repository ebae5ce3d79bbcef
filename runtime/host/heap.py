"""The C library's heap, which keeps what was freed for as long as the process lives, unless it is asked for it."""

from __future__ import annotations

import ctypes


def give_heap_back() -> None:
    """Returns freed memory to the system; for when there is much of it. glibc alone can do it."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
