"""The memory barriers that the core needs without a compiled extension.

The parking side pays, so that senders need none:

x86-64 may let a load overtake an earlier store to another address. A process that parks stores "I am parked" and then
looks at its lanes once more; a sender stores its index and then looks whether the receiver is parked. Without a fence
both may miss the other. `membarrier(GLOBAL_EXPEDITED)` on the parking side makes every registered process execute a
full barrier, which orders the sender's two accesses as well (membarrier(2)).

Publishing needs a record's bytes to be visible before its index. x86-64 keeps the order of stores and that of loads;
elsewhere the publisher executes the same barrier in between (untested).
"""

from __future__ import annotations

import ctypes
import platform

_MEMBARRIER = {"x86_64": 324, "aarch64": 283}.get(platform.machine())
_GLOBAL_EXPEDITED = 1 << 1
_REGISTER_GLOBAL_EXPEDITED = 1 << 2

# Intel SDM volume 3, 9.2.2: stores are seen in program order, and loads are not reordered with other loads.
KEEPS_ORDER = platform.machine() in ("x86_64", "AMD64", "i686")

_libc = ctypes.CDLL(None, use_errno=True)
_syscall = _libc.syscall
_syscall.restype = ctypes.c_long
_registered = False


def register() -> bool:
    """Makes this process take part in barriers; once a process, before it sends. False where the kernel refuses."""
    global _registered
    if _MEMBARRIER is not None and not _registered:
        _registered = _syscall(_MEMBARRIER, _REGISTER_GLOBAL_EXPEDITED, 0) == 0
    return _registered


def full_barrier() -> bool:
    """Orders all earlier stores of this thread before its later loads, and those of every registered process.

    False where the kernel has no such call: then park with a bounded timeout.
    """
    return _registered and _syscall(_MEMBARRIER, _GLOBAL_EXPEDITED, 0) == 0
