"""Work in a child process, which may die of it."""

from __future__ import annotations

import os
import random
import signal
import traceback
from collections.abc import Callable

# Whoever takes this long hangs: the whole takes a second or two.
HANGS_AFTER_S = 60


def in_a_child(fuzz: Callable[[random.Random], None], seed: int) -> None:
    """Runs it where a crash ends nobody else."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            signal.alarm(HANGS_AFTER_S)
            fuzz(random.Random(seed))
            status = 0
        except BaseException:
            os.write(2, traceback.format_exc().encode())
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0, f"seed {seed}"
