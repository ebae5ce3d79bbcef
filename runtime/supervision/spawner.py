"""Starts workers: from the nursery where that serves, each by itself where it does not."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Mapping, Sequence

from ..errors import Disconnected
from .fork_server import POOLS, Nursery

logger = logging.getLogger("slabwire")


class Spawner:
    """Used by the supervisor's main thread alone: the kernel kills workers with the thread that started them."""

    def __init__(self) -> None:
        self._nursery: Nursery | None = Nursery()
        self._has_borne = False
        self._is_first = True

    def start(self, words: Sequence[str], environment: Mapping[str, str], log: int, channel: int) -> int:
        """The pid of a new worker; raises OSError where the kernel has no process for it.

        One with several threads starts by itself: numpy's library for linear algebra makes them when it is loaded. A
        nursery that takes another's place is not waited for: the supervisor would do nothing else until it is ready.
        """
        is_for_one_thread = all(environment.get(name) == "1" for name in POOLS)
        if self._nursery is not None and is_for_one_thread and (self._is_first or self._nursery.is_ready()):
            try:
                pid = self._nursery.bear(words, environment, log, channel)
            except Disconnected as error:
                self._replace_nursery(error)
            else:
                self._has_borne = True
                return pid
        return _start_alone(words, environment, log, channel)

    def _replace_nursery(self, error: Disconnected) -> None:
        """One that never bore a worker would not do so next time."""
        logger.warning("%s; a worker is started without it", error)
        self._nursery = Nursery() if self._has_borne else None
        self._is_first = False
        self._has_borne = False

    @property
    def nursery_pid(self) -> int:
        """0 where there is none."""
        return self._nursery.pid if self._nursery is not None else 0

    def close(self) -> None:
        if self._nursery is not None:
            self._nursery.close()


def _start_alone(words: Sequence[str], environment: Mapping[str, str], log: int, channel: int) -> int:
    process = subprocess.Popen(
        [sys.executable, "-m", "slabwire.runtime.worker.main", *words, "--fd", str(channel)],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        pass_fds=[channel],
        env=environment,
        start_new_session=True,  # Ctrl-C on the terminal is for whoever started the graph
    )
    process.returncode = 0  # it is waited for by its number, as those from the nursery are
    return process.pid
