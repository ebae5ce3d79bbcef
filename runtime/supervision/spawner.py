"""Starts workers: from the fork server where that serves, each by itself where it does not."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Mapping, Sequence

from ..errors import Disconnected
from .fork_server import POOLS, ForkServer

logger = logging.getLogger("slabwire")


class Spawner:
    """Used by the supervisor's main thread alone: the kernel kills workers with the thread that started them."""

    def __init__(self) -> None:
        self._fork_server: ForkServer | None = ForkServer()
        self._has_forked = False
        self._is_first = True

    def start(self, words: Sequence[str], environment: Mapping[str, str], log: int, channel: int) -> int:
        """The pid of a new worker; raises OSError where the kernel has no process for it.

        A worker with several threads starts by itself: numpy's library for linear algebra makes them when it is loaded.
        Nobody waits for a fork server that takes another's place: the supervisor would do nothing else until that is
        ready.
        """
        is_for_one_thread = all(environment.get(name) == "1" for name in POOLS)
        if self._fork_server is not None and is_for_one_thread and (self._is_first or self._fork_server.is_ready()):
            try:
                pid = self._fork_server.fork_worker(words, environment, log, channel)
            except Disconnected as error:
                self._replace_fork_server(error)
            else:
                self._has_forked = True
                return pid
        command = [sys.executable, "-m", "slabwire.runtime.worker.main", *words, "--fd", str(channel)]
        return start_alone(command, environment, log, channel)

    def _replace_fork_server(self, error: Disconnected) -> None:
        """A fork server that has never forked a worker would not do so next time."""
        logger.warning("%s; a worker is started without it", error)
        self._fork_server = ForkServer() if self._has_forked else None
        self._is_first = self._has_forked = False

    @property
    def fork_server_pid(self) -> int:
        """0 where there is none."""
        return self._fork_server.pid if self._fork_server is not None else 0

    def close(self) -> None:
        if self._fork_server is not None:
            self._fork_server.close()


def start_alone(command: Sequence[str], environment: Mapping[str, str], log: int, channel: int) -> int:
    """The pid of a new process that runs a command of its own. It inherits the descriptor `channel`."""
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        pass_fds=[channel],
        env=environment,
        start_new_session=True,  # Ctrl-C on the terminal is for whoever started the graph
    )
    process.returncode = 0  # it is waited for by its number, as those from the fork server are
    return process.pid
