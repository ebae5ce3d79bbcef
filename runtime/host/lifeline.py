"""Ties a process to its parent: when the parent dies, however it dies, the kernel kills the child."""

from __future__ import annotations

import ctypes
import os
import signal
import threading

_PR_SET_PDEATHSIG = 1
# Makes a worker write the stacks of its threads to its log.
HUNG_SIGNAL = signal.SIGUSR1


def die_with_parent(parent: int) -> None:
    """Arms the kernel's signal, then checks that the parent did not die before. Ends the process if it did.

    The signal follows the parent's *thread* that started this process, so that must be its main thread.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != parent:
        os._exit(1)


def tie_forks() -> None:
    """What this process's main thread forks from now on dies with it: also when the kernel kills both for a parent's
    death. What a child of its forks is not tied, nor what is started without a fork of Python's (subprocess).
    """
    libc, tied = ctypes.CDLL(None), os.getpid()
    is_ours = False

    def before() -> None:
        nonlocal is_ours
        is_ours = os.getpid() == threading.get_native_id() == tied

    def in_child() -> None:
        if is_ours:
            libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            if os.getppid() != tied:
                os._exit(1)

    os.register_at_fork(before=before, after_in_child=in_child)
