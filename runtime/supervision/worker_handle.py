"""One worker as its parent sees it: the process, how it ended, whether it hangs."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
from collections.abc import Callable, Sequence
from typing import BinaryIO

from ...shm.bell import now_ns
from ..dataplane.descriptor_channel import Channel
from ..dataplane.peers import Party
from ..errors import LoadError
from ..host.heartbeat import is_stopped
from ..host.lifeline import HUNG_SIGNAL
from ..host.oom_kills import KillCounts, kills_in_machine
from ..host.process_usage import cpu_s
from ..host.run_directory import RunDirectory
from ..placement.plan import WorkerPlan
from ..postmortem.exit_reason import Ending, Kind, ending, late
from ..spec import ActorSpec, Restart
from .fork_server import POOLS
from .spawner import Spawner

logger = logging.getLogger("slabwire")

# The stacks of a hung worker are written by a signal handler; it is given this long.
_STACKS_WITHIN_S = 0.2
# Why it ended is told over ZeroMQ, and may come later than the news that it has; who ended by os._exit says nothing.
_LAST_WORD_WITHIN_S = 0.1
# What a crash report looks through.
_TAIL_NBYTES = 128 << 10
_RANKS: tuple[Restart, ...] = ("permanent", "transient", "temporary")


class WorkerProcess:
    """Spawned by the supervisor's main thread alone: the kernel kills it when that thread ends.

    `exited(self)` is called on the loop when it has ended and was reaped.
    """

    def __init__(
        self,
        plan: WorkerPlan,
        party: Party,
        actors: Sequence[ActorSpec],
        directory: RunDirectory,
        spawner: Spawner,
        exited: Callable[[WorkerProcess], None],
    ) -> None:
        self.plan = self.spawned_by = plan  # the second is what the process that runs was started with
        self.name = plan.name
        self.party = party
        self.restarts = 0
        self.is_ready = self.was_ready = False
        self.told_to_stop = self.was_killed = False
        self.error: str | None = None
        self.detail = ""
        self.could_load = True
        self.failed_starts = 0  # since one became ready
        self.last_end: Ending | None = None
        self.restart: Restart = min((each.restart for each in actors), key=_RANKS.index)
        self._hang_after_ns = int(min(each.hang_after_s for each in actors) * 1e9)
        self._start_within_ns = int(max(each.start_timeout_s for each in actors) * 1e9)
        self._directory = directory
        self._spawner = spawner
        self._exited = exited
        self.pid = 0
        self._pidfd = -1
        self._ended = asyncio.Event()
        self._spawned_ns = 0
        self._ready_ns = self._log_from = 0
        self._leaving_ns = 0
        self._overdue: Ending | None = None
        self._killing: asyncio.TimerHandle | None = None
        self._concluding: tuple[asyncio.TimerHandle, int] | None = None
        self._kills = KillCounts()
        self._ignoring_since_ns = self._parks = 0
        self._left = asyncio.Event()
        self._spent_s = 0.0

    @property
    def is_alive(self) -> bool:
        return self.pid != 0 and not self._ended.is_set()

    @property
    def cpu_s(self) -> float:
        """User and system time of this worker so far, that of its predecessors included."""
        return self._spent_s + (cpu_s(self.pid) if self.is_alive else 0.0)

    @property
    def last_exit(self) -> str | None:
        """How it ended last, in words."""
        return None if self.last_end is None else self.last_end.text

    def spawn(self, control: str) -> Channel:
        """Starts the process; returns this end of its descriptor channel."""
        near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        words = ["--name", self.name, "--control", control, "--parent", str(os.getpid())]
        self.is_ready = self.was_ready = self.was_killed = False
        self._overdue = None
        self._leaving_ns = 0
        self.spawned_by = self.plan
        self.error, self.detail, self.could_load = None, "", True
        self._ignoring_since_ns = 0
        with self._log() as log, far:
            self._log_from = log.tell()
            pid = self._spawner.start(words, self._environment(), log.fileno(), far.fileno())
        self._pidfd = _watched(pid)
        self.pid = pid
        self._ended.clear()
        self._left.clear()
        self._kills.look(self.pid, kills_in_machine())
        self._spawned_ns = now_ns()
        self._ready_ns = 0
        asyncio.get_running_loop().add_reader(self._pidfd, self._reap)
        return Channel(near)

    def _environment(self) -> dict[str, str]:
        threads = str(self.plan.threads)
        pools = dict.fromkeys(POOLS, threads)
        return {**os.environ, "PYTHONUNBUFFERED": "1", **pools}

    def _log(self) -> BinaryIO:
        return open(self._directory.open_log(self.name), "ab")

    def log_tail(self) -> list[str]:
        """The last lines that the process, the present one or the last, has written."""
        try:
            with open(self._directory.log(self.name), "rb") as log:
                end = log.seek(0, os.SEEK_END)
                begin = self._log_from if self._log_from <= end else 0  # it was put aside, and begun anew
                log.seek(max(begin, end - _TAIL_NBYTES))
                return log.read(_TAIL_NBYTES).decode("utf-8", "replace").splitlines()
        except OSError:
            return []

    def alive_s(self) -> float:
        """Since the process was started."""
        return (now_ns() - self._spawned_ns) / 1e9

    def _reap(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)  # what it has left running; before its number may be another's
        _, waited, used = os.wait4(self.pid, 0)
        self._spent_s += used.ru_utime + used.ru_stime
        status = os.waitstatus_to_exitcode(waited)
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        self._pidfd = -1
        self.is_ready = False
        if self._killing is not None:
            self._killing.cancel()  # else it would be its successor's end
            self._killing = None
        was_told = status == 0 and (self.told_to_stop or self._leaving_ns)
        if status < 0 or was_told or self.error is not None:
            self._conclude(status)
        else:
            self._concluding = loop.call_later(_LAST_WORD_WITHIN_S, self._conclude, status), status

    def has_failed(self, error: str, detail: str, code: str = "") -> None:
        """It says why it ends, or has ended."""
        self.error, self.detail, self.could_load = error, detail, code != LoadError.code
        if self._concluding is not None:
            waiting, status = self._concluding
            waiting.cancel()
            self._conclude(status)

    def _conclude(self, status: int) -> None:
        self._concluding = None
        self.last_end = ending(status, overdue=self._overdue, killer=self._kills.rose(), error=self.error)
        self.failed_starts += not self.was_ready
        self._ended.set()
        self._left.set()
        self._exited(self)

    def end_if_hung(self, alive_ns: int, parks: int, *, ignores_input: bool) -> None:
        """Kills a worker that has not come round to its loop for too long, after having it write its stacks.

        `alive_ns` is when it last did, 0 while it sleeps; a sleeper that ignores its input hangs as well, and so does
        one that was stopped, whatever it had said before. `parks` counts its sleeps: one that went on to another sleep
        has looked at its input in between, and what came while it was being asked about is not ignored.
        """
        if self._pidfd < 0 or self._overdue is not None:
            return
        now = now_ns()
        if parks != self._parks:
            self._parks, self._ignoring_since_ns = parks, 0
        self._ignoring_since_ns = (self._ignoring_since_ns or now) if ignores_input or is_stopped(self.pid) else 0
        # The word outlives the process that wrote it: what is older than this one's start says nothing of it.
        since = self._ignoring_since_ns or (max(alive_ns, self._ready_ns) if alive_ns else 0)
        if not self.is_ready:
            self._end_if_over("start_timeout", self._spawned_ns, self._start_within_ns, now)
        elif self._leaving_ns:
            self._end_if_over("stop_timeout", self._leaving_ns, self._hang_after_ns, now)
        else:
            self._end_if_over("hang", since, self._hang_after_ns, now)

    def look_for_kills(self, in_machine: int) -> None:
        """From time to time while it lives: `in_machine` is what `kills_in_machine` gives."""
        if self.is_alive:
            self._kills.look(self.pid, in_machine)

    def _end_if_over(self, kind: Kind, since_ns: int, limit_ns: int, now: int) -> None:
        if not since_ns or now - since_ns <= limit_ns:
            return
        self._overdue = late(kind, limit_ns / 1e9)
        logger.error(
            "%s made no progress for %.1f s; it is killed, its stacks are in its log", self.name, limit_ns / 1e9
        )
        self._signal(HUNG_SIGNAL)
        self._killing = asyncio.get_running_loop().call_later(_STACKS_WITHIN_S, self.kill)

    def became_ready(self) -> None:
        """Its actors have started."""
        self.is_ready = self.was_ready = True
        self.failed_starts = 0
        self._ready_ns = now_ns()

    def retire(self) -> None:
        """Tells it to leave after the work at hand: a successor takes over what is in flight."""
        self._leaving_ns = self._leaving_ns or now_ns()
        self._signal(signal.SIGTERM)

    def has_left(self) -> None:
        """It has run its last code, and only ends."""
        self._left.set()

    def kill(self) -> None:
        self.was_killed = True
        self._signal(signal.SIGKILL)

    def _signal(self, number: int) -> None:
        if self.is_alive and self._pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, number)

    async def wait_left(self, timeout_s: float) -> None:
        """Waits until its actors have stopped, or for so long."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._left.wait()

    async def wait_ended(self, timeout_s: float | None) -> None:
        """Waits until the process was reaped, or for so long."""
        if not self.is_alive:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._ended.wait()


def _watched(pid: int) -> int:
    """The pidfd of a new child. Raises OSError where there is no descriptor for it: then the child is ended."""
    try:
        return os.pidfd_open(pid)
    except OSError:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise
