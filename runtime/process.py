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

from ..shm.bell import now_ns
from .channel import Channel
from .lifeline import HUNG_SIGNAL
from .nursery import POOLS
from .party import Party
from .placement import WorkerPlan
from .restart import RestartPolicy
from .rundir import RunDirectory
from .spawner import Spawner
from .spec import ActorSpec

logger = logging.getLogger("slabwire")

# The stacks of a hung worker are written by a signal handler; it is given this long.
_STACKS_WITHIN_S = 0.2
_LOG_NBYTES = 16 << 20


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
        self.is_ready = False
        self.told_to_stop = False
        self.error: str | None = None
        self.detail = ""
        self.last_status: int | None = None
        self.last_exit: str | None = None
        ranks = ("permanent", "transient", "temporary")
        self.policy = RestartPolicy(min((each.restart for each in actors), key=ranks.index))
        self._hang_after_ns = int(min(each.hang_after_s for each in actors) * 1e9)
        self._start_within_ns = int(max(each.start_timeout_s for each in actors) * 1e9)
        self._directory = directory
        self._spawner = spawner
        self._exited = exited
        self.pid = 0
        self._pidfd = -1
        self._ended = asyncio.Event()
        self._spawned_ns = 0
        self._ready_ns = 0
        self._hung = False
        self._ignoring_since_ns = self._parks = 0
        self._renewing = False

    @property
    def is_alive(self) -> bool:
        return self.pid != 0 and not self._ended.is_set()

    def spawn(self, control: str) -> Channel:
        """Starts the process; returns this end of its descriptor channel."""
        near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        words = ["--name", self.name, "--control", control, "--parent", str(os.getpid())]
        self.is_ready = self._hung = False
        self.spawned_by = self.plan
        self.error, self.detail = None, ""
        self._ignoring_since_ns = 0
        with self._log() as log, far:
            self.pid = self._spawner.start(words, self._environment(), log.fileno(), far.fileno())
        self._ended.clear()
        self._spawned_ns = now_ns()
        self._ready_ns = 0
        self._pidfd = os.pidfd_open(self.pid)
        asyncio.get_running_loop().add_reader(self._pidfd, self._reap)
        return Channel(near)

    def _environment(self) -> dict[str, str]:
        threads = str(self.plan.threads)
        pools = dict.fromkeys(POOLS, threads)
        return {**os.environ, "PYTHONUNBUFFERED": "1", **pools}

    def _log(self) -> BinaryIO:
        path = self._directory.log(self.name)
        with contextlib.suppress(OSError):
            if path.stat().st_size > _LOG_NBYTES:
                path.replace(path.with_suffix(".log.1"))
        return open(path, "ab")

    def _reap(self) -> None:
        status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        asyncio.get_running_loop().remove_reader(self._pidfd)
        os.close(self._pidfd)
        self._pidfd = -1
        self.is_ready = False
        self.last_status = status
        self.last_exit = "hung and was killed" if self._hung else _in_words(status)
        self._ended.set()
        self._exited(self)

    def why(self) -> str:
        """How it ended last, with the error that it reported if it did."""
        return f"{self.last_exit}: {self.error}" if self.error else str(self.last_exit)

    def end_if_hung(self, alive_ns: int, parks: int, *, ignores_input: bool) -> None:
        """Kills a worker that has not come round to its loop for too long, after having it write its stacks.

        `alive_ns` is when it last did, 0 while it sleeps; a sleeper that ignores its input hangs as well, and so does
        one that was stopped, whatever it had said before. `parks` counts its sleeps: one that went on to another sleep
        has looked at its input in between, and what came while it was being asked about is not ignored.
        """
        if not self.is_alive or self._hung:
            return
        now = now_ns()
        if parks != self._parks:
            self._parks, self._ignoring_since_ns = parks, 0
        self._ignoring_since_ns = (self._ignoring_since_ns or now) if ignores_input or self._is_stopped() else 0
        # The word outlives the process that wrote it: what is older than this one's start says nothing of it.
        since = self._ignoring_since_ns or (max(alive_ns, self._ready_ns) if alive_ns else 0)
        limit_ns = self._hang_after_ns
        if not self.is_ready:
            since, limit_ns = self._spawned_ns, self._start_within_ns
        if since and now - since > limit_ns:
            self._hung = True
            logger.error(
                "%s made no progress for %.1f s; it is killed, its stacks are in its log", self.name, limit_ns / 1e9
            )
            self._signal(HUNG_SIGNAL)
            asyncio.get_running_loop().call_later(_STACKS_WITHIN_S, self.kill)

    def _is_stopped(self) -> bool:
        """Whether the kernel does not run it, since a signal stopped it."""
        try:
            with open(f"/proc/{self.pid}/stat") as stat:
                return stat.read().rpartition(")")[2].split()[0] == "T"
        except OSError:
            return False

    def became_ready(self) -> None:
        """Its actors have started."""
        self.is_ready = True
        self._ready_ns = now_ns()

    def renew(self) -> None:
        """Ends it so that a successor takes over, whatever the restart policy says."""
        self._renewing = True
        self.policy.forgive()
        self._signal(signal.SIGTERM)

    def restart_delay_s(self, now_s: float) -> float | None:
        """How soon to start a successor of the process that has ended; None for not at all."""
        if self._renewing:
            self._renewing = False
            return 0.0
        return self.policy.after_exit(failed=self.last_status != 0, now_s=now_s)

    def kill(self) -> None:
        self._signal(signal.SIGKILL)

    def _signal(self, number: int) -> None:
        if self.is_alive and self._pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, number)

    async def wait_ended(self, timeout_s: float | None) -> bool:
        """Waits until the process was reaped; False if that took too long."""
        if not self.is_alive:
            return True
        try:
            async with asyncio.timeout(timeout_s):
                await self._ended.wait()
        except TimeoutError:
            return False
        return True


def _in_words(status: int) -> str:
    if status < 0:
        try:
            return f"killed by {signal.Signals(-status).name}"
        except ValueError:
            return f"killed by signal {-status}"
    return "ended" if status == 0 else f"ended with status {status}"
