"""A process of the supervisor's, a worker or the gateway: watched by its pidfd, killed when it hangs, reaped."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Callable
from typing import Any, BinaryIO

from ...shm.bell import now_ns
from ..host.lifeline import HUNG_SIGNAL
from ..host.oom_kills import KillCounts, kills_in_machine
from ..host.process_usage import cpu_s
from ..host.run_directory import RunDirectory
from ..postmortem.exit_reason import ExitReason, Kind, ending, late
from .child_states import Event, Life, State

logger = logging.getLogger("slabwire")

# The stacks of a hung process are written by a signal handler; it is given this long.
_STACKS_WITHIN_S = 0.2


class Child:
    """Spawned by the supervisor's main thread alone: the kernel kills the child when that thread ends.

    `exited(self)` is called on the loop when the process has ended and was reaped. With `told_to_stop` it gets no
    successor.
    """

    def __init__(self, name: str, life: Life, directory: RunDirectory, exited: Callable[[Any], None]) -> None:
        self.name = name
        self.life = life
        self.pid = 0  # of the last process, also when that has ended
        self.restarts = 0
        self.told_to_stop = False
        self.error: str | None = None
        self.last_end: ExitReason | None = None
        self._directory = directory
        self._exited = exited
        self._pidfd = -1
        self._overdue: ExitReason | None = None
        self._killing: asyncio.TimerHandle | None = None
        self._kills = KillCounts()
        self._spent_s = 0.0
        self._changed = asyncio.Event()

    @property
    def is_alive(self) -> bool:
        return self.life.state != "absent"

    @property
    def is_ready(self) -> bool:
        return self.life.state in ("ready", "retiring", "left")

    @property
    def cpu_s(self) -> float:
        """User and system time of this child so far, that of its predecessors included."""
        return self._spent_s + (cpu_s(self.pid) if self.is_alive else 0.0)

    @property
    def last_exit(self) -> str | None:
        """How the last process that has ended did so, in words."""
        return None if self.last_end is None else self.last_end.text

    def _log(self) -> BinaryIO:
        return open(self._directory.open_log(self.name), "ab")

    def _spawned(self, pid: int) -> None:
        """Watches a new process. Raises OSError where there is no descriptor for that: then the process is ended."""
        try:
            self._pidfd = os.pidfd_open(pid)
        except OSError:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise
        self.pid = pid
        self.error = self._overdue = None
        self._happened("spawned")
        self.look_for_kills(kills_in_machine())
        asyncio.get_running_loop().add_reader(self._pidfd, self._reap)

    def _happened(self, event: Event) -> None:
        self.life.happened(event, now_ns())
        self._changed.set()
        self._changed = asyncio.Event()

    def _reap(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)  # what the process has left running; its number is not another's yet
        _, waited, used = os.wait4(self.pid, 0)
        self._spent_s += used.ru_utime + used.ru_stime
        asyncio.get_running_loop().remove_reader(self._pidfd)
        os.close(self._pidfd)
        self._pidfd = -1
        if self._killing is not None:
            self._killing.cancel()  # else the timer would kill the successor
        self._happened("reaped")
        self._ended(os.waitstatus_to_exitcode(waited))

    def _ended(self, status: int) -> None:
        """Says how the process ended, now that all is known of it."""
        self.last_end = ending(status, overdue=self._overdue, killer=self._kills.rose(), error=self.error)
        self._happened("concluded")
        self._exited(self)

    def look_for_kills(self, in_machine: int) -> None:
        """From time to time while the process lives: `in_machine` is what `kills_in_machine` gives."""
        if self.is_alive:
            self._kills.look(self.pid, in_machine)

    def became_ready(self) -> None:
        self._happened("became_ready")

    def retire(self) -> None:
        """Tells the process to leave after the work at hand: a successor takes over what is in flight."""
        self._happened("told_to_leave")
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        self._happened("killed")
        self._signal(signal.SIGKILL)

    def _kill_late(self, kind: Kind, within_s: float, why: str) -> None:
        """Kills a process that does not get on, after having it write its stacks."""
        self._overdue = late(kind, within_s)
        logger.error("%s; it is killed, its stacks are in its log", why)
        self._happened("was_late")
        self._signal(HUNG_SIGNAL)
        self._killing = asyncio.get_running_loop().call_later(_STACKS_WITHIN_S, self.kill)

    def _signal(self, number: int) -> None:
        if self._pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, number)

    async def wait_ended(self, timeout_s: float | None, *, or_in: State = "absent") -> None:
        """Waits until the process was reaped and all is known of its end, or it is in another state, or for so long."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while self.life.state not in ("absent", or_in):
                    await self._changed.wait()
