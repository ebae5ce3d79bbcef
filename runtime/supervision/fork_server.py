"""How workers and the gateway are started: most workers are forked from a process that has imported all they need.

A Python process with numpy, ZeroMQ and us takes a quarter of a second of CPU time to start, a fork some milliseconds.
So the supervisor keeps one fork server, which has one thread, holds nothing of the graph and imports no user code. The
server forks twice: the process in between ends at once, and the kernel gives the worker to the nearest living ancestor
that is a subreaper, which is the supervisor while it waits. So workers are children of the supervisor's main thread as
if that had spawned them: the supervisor reaps them, the kernel kills them with the supervisor, and the death of the
fork server touches none.
"""

from __future__ import annotations

import ctypes
import logging
import os
import select
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence

from ..errors import Disconnected
from ..host.sealed_document import pack_document

logger = logging.getLogger("slabwire")

# The fork server says when it has imported, which a cold disk may draw out. Answers take milliseconds, and the
# supervisor does nothing else meanwhile: from a fork server that is late it takes no more workers.
_READY_WITHIN_S, _ANSWER_WITHIN_S = 60.0, 1.0
_PR_SET_CHILD_SUBREAPER = 36  # prctl(2)
# Read by numerical libraries when they are loaded. The fork server has loaded numpy's for one thread.
POOLS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
# The fork server's command line is so much longer than needed: workers overwrite it with theirs, and `ps` shows who is
# who.
TITLE_NBYTES = 240


def environment_for(threads: int) -> dict[str, str]:
    """The environment of a child whose numerical libraries are to have so many threads."""
    return {**os.environ, "PYTHONUNBUFFERED": "1", **dict.fromkeys(POOLS, str(threads))}


class ForkServer:
    """Started by the supervisor's main thread, which alone may ask it for workers."""

    def __init__(self) -> None:
        near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        command = [sys.executable, "-m", "slabwire.runtime.supervision.fork_server_main", "--parent", str(os.getpid())]
        with far:
            self._process = subprocess.Popen(
                [*command, "--fd", str(far.fileno()), "." * TITLE_NBYTES],
                stdin=subprocess.DEVNULL,
                pass_fds=[far.fileno()],
                env=environment_for(1),
                start_new_session=True,
            )
        near.settimeout(_READY_WITHIN_S)
        self._socket = near
        self._has_begun = False
        self.has_forked = False

    @property
    def pid(self) -> int:
        return self._process.pid

    def is_ready(self) -> bool:
        """Whether it has news: that it can take an order, or that it has ended. Does not wait."""
        return self._has_begun or bool(select.select([self._socket], [], [], 0)[0])

    def fork_worker(self, words: Sequence[str], environment: Mapping[str, str], log: int, channel: int) -> int:
        """The pid of a new worker, a child of this process: `words` are its arguments, `log` is its output.

        Waits for a fork server that is not ready. Raises OSError where the kernel has no process for the worker, and
        Disconnected where the fork server is of no more use.
        """
        changed = {name: value for name, value in environment.items() if os.environ.get(name) != value}
        order = pack_document({"words": list(words), "environment": changed})
        _be_subreaper(True)
        try:
            if not self._has_begun:
                self._has_begun = bool(self._socket.recv(64))
                self._socket.settimeout(_ANSWER_WITHIN_S)
            socket.send_fds(self._socket, [order], [log, channel])
            pid = int(self._socket.recv(64) or 0)
        except OSError:
            pid = 0
        finally:
            _be_subreaper(False)
        if pid == 0:
            self.close()
            raise Disconnected("the fork server has died, or does not answer")
        if pid < 0:
            raise OSError(-pid, os.strerror(-pid))
        if not _is_child(pid):
            self.close()
            raise Disconnected("the kernel does not hand over what the fork server forked")
        self.has_forked = True
        return pid

    def close(self) -> None:
        """Ends it. The workers that it forked live on."""
        self._socket.close()
        self._process.kill()
        self._process.wait()


class Spawner:
    """Starts workers: from the fork server where that serves, each by itself where it does not.

    Used by the supervisor's main thread alone: the kernel kills workers with the thread that started them.
    """

    def __init__(self) -> None:
        self._fork_server: ForkServer | None = ForkServer()
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
                return self._fork_server.fork_worker(words, environment, log, channel)
            except Disconnected as error:
                logger.warning("%s; a worker is started without it", error)
                # A fork server that has never forked a worker would not do so next time.
                self._fork_server = ForkServer() if self._fork_server.has_forked else None
                self._is_first = False
        command = [sys.executable, "-m", "slabwire.runtime.worker.main", *words, "--fd", str(channel)]
        return start_alone(command, environment, log, channel)

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


def _is_child(pid: int) -> bool:
    """Whether we may wait for a process. A worker that is not ours ends by itself: it was told another parent."""
    try:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def _be_subreaper(whether: bool) -> None:
    """Only while a worker is forked: else what workers' own children leave behind would be ours to reap."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, int(whether), 0, 0, 0)
