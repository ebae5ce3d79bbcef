"""One worker as its parent sees it: what it was started with, why it ended, whether it gets on."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Sequence

from ...shm.bell import now_ns
from ..dataplane.descriptor_channel import Channel
from ..dataplane.peers import Peer
from ..errors import LoadError
from ..host.process_usage import is_stopped
from ..host.run_directory import RunDirectory
from ..placement.plan import WorkerPlan
from ..spec import ActorSpec, Restart
from .child import Child
from .child_states import Life
from .fork_server import Spawner, environment_for

# Why a worker ended is told over ZeroMQ, and may come later than the news of its end. A worker that ended by os._exit
# says nothing.
_LAST_WORD_WITHIN_S = 0.1
# What a crash report looks through.
_TAIL_NBYTES = 128 << 10
_RANKS: tuple[Restart, ...] = ("permanent", "transient", "temporary")


class WorkerHandle(Child):
    """The supervisor's. Its successors have the same name, and most often the same plan."""

    def __init__(
        self,
        plan: WorkerPlan,
        peer: Peer,
        actors: Sequence[ActorSpec],
        directory: RunDirectory,
        spawner: Spawner,
        exited: Callable[[WorkerHandle], None],
    ) -> None:
        life = Life(max(each.start_timeout_s for each in actors), min(each.hang_after_s for each in actors))
        super().__init__(plan.name, life, directory, exited)
        self.plan = self.spawned_by = plan  # `spawned_by` is the plan that the running process was started with
        self.peer = peer
        self.restart: Restart = min((each.restart for each in actors), key=_RANKS.index)
        self.detail = ""
        self.could_load = True
        self.failed_starts = 0  # since one became ready
        self._spawner = spawner
        self._log_from = 0
        self._last_word: tuple[asyncio.TimerHandle, int] | None = None
        self._ignoring_since_ns = self._parks = 0

    def spawn(self, control: str) -> Channel:
        """Starts the process; returns this end of its descriptor channel. Raises OSError if there is no process."""
        near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        words = ["--name", self.name, "--control", control, "--parent", str(os.getpid())]
        self.spawned_by = self.plan
        self.detail, self.could_load = "", True
        self._ignoring_since_ns = 0
        with self._log() as log, far:
            self._log_from = log.tell()
            environment = environment_for(self.plan.threads)
            self._spawned(self._spawner.start(words, environment, log.fileno(), far.fileno()))
        return Channel(near)

    def log_tail(self) -> list[str]:
        """The last lines that the process, the present one or the last, has written."""
        try:
            with open(self._directory.log(self.name), "rb") as log:
                end = log.seek(0, os.SEEK_END)
                begin = self._log_from if self._log_from <= end else 0  # the log was put aside, and begun anew
                log.seek(max(begin, end - _TAIL_NBYTES))
                return log.read(_TAIL_NBYTES).decode("utf-8", "replace").splitlines()
        except OSError:
            return []

    def alive_s(self) -> float:
        """Since the process was started."""
        return (now_ns() - self.life.started_ns) / 1e9

    def became_ready(self) -> None:
        """The worker's actors have started."""
        super().became_ready()
        self.failed_starts = 0

    def has_left(self) -> None:
        """The worker has run its last code, and only ends."""
        self._happened("has_left")

    def has_failed(self, error: str, detail: str, code: str = "") -> None:
        """The worker says why it ends, or has ended."""
        self.error, self.detail, self.could_load = error, detail, code != LoadError.code
        if self._last_word is not None:
            waiting, status = self._last_word
            waiting.cancel()
            self._conclude(status)

    def _ended(self, status: int) -> None:
        """A worker that ended by itself and has not said why gets a moment for its last word."""
        was_told = self.told_to_stop or self.life.ended_in in ("cancelled", "retiring", "left")
        if status < 0 or (status == 0 and was_told) or self.error is not None:
            self._conclude(status)
        else:
            waiting = asyncio.get_running_loop().call_later(_LAST_WORD_WITHIN_S, self._conclude, status)
            self._last_word = waiting, status

    def _conclude(self, status: int) -> None:
        self._last_word = None
        self.failed_starts += not self.life.was_ready
        super()._ended(status)

    def end_if_hung(self, alive_ns: int, parks: int, *, ignores_input: bool) -> None:
        """Kills a worker that has not come round to its loop for too long, after having it write its stacks.

        `alive_ns` is when it last did, 0 while it sleeps. A sleeper that ignores its input hangs as well, and so does a
        worker that was stopped by a signal, whatever it had said before. `parks` counts its sleeps: a worker that went
        on to another sleep has looked at its input in between, and what came while it was being asked about is not
        ignored.
        """
        now = now_ns()
        if parks != self._parks:
            self._parks, self._ignoring_since_ns = parks, 0
        self._ignoring_since_ns = (self._ignoring_since_ns or now) if ignores_input or is_stopped(self.pid) else 0
        overdue = self.life.overdue(self._ignoring_since_ns or alive_ns, now)
        if overdue is not None:
            kind, within_s = overdue
            self._kill_late(kind, within_s, f"{self.name} made no progress for {within_s:.1f} s")
