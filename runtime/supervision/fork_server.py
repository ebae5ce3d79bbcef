"""Workers that need not import anything: they are forked from a process that has imported everything they need.

A Python process with numpy, ZeroMQ and us takes a quarter of a second of CPU time to start, a fork some milliseconds.
So the supervisor keeps one *nursery*, which has one thread, holds nothing of the graph and imports no user code. It
forks twice: the process in between ends at once, and the kernel gives the worker to the nearest living ancestor that
takes in orphans, which is the supervisor while it waits. So workers are children of the supervisor's main thread as if
it had spawned them: it reaps them, the kernel kills them with it, and the nursery's death touches none.
"""

from __future__ import annotations

import ctypes
import os
import select
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence

from ..errors import Disconnected
from ..host.sealed_document import pack_document

# It says when it has imported, which a cold disk may draw out. Answers take milliseconds, and the supervisor does
# nothing else meanwhile: from one that is late it takes no more workers.
_READY_WITHIN_S, _ANSWER_WITHIN_S = 60.0, 1.0
_PR_SET_CHILD_SUBREAPER = 36  # prctl(2)
# Read by numerical libraries when they are loaded. The nursery has loaded numpy's for one thread.
POOLS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
# Its command line keeps this much room for those of the workers, which overwrite it: so `ps` shows who is who.
TITLE_NBYTES = 240


class Nursery:
    """Started by the supervisor's main thread, which alone may ask it for workers."""

    def __init__(self) -> None:
        near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        command = [sys.executable, "-m", "slabwire.runtime.supervision.fork_server_main", "--parent", str(os.getpid())]
        with far:
            self._process = subprocess.Popen(
                [*command, "--fd", str(far.fileno()), "." * TITLE_NBYTES],
                stdin=subprocess.DEVNULL,
                pass_fds=[far.fileno()],
                env={**os.environ, "PYTHONUNBUFFERED": "1", **dict.fromkeys(POOLS, "1")},
                start_new_session=True,
            )
        near.settimeout(_READY_WITHIN_S)
        self._socket = near
        self._has_begun = False
        self.is_open = True

    @property
    def pid(self) -> int:
        return self._process.pid

    def is_ready(self) -> bool:
        """Whether it would answer an order now, be it by its end. Does not wait."""
        return self._has_begun or bool(select.select([self._socket], [], [], 0)[0])

    def bear(self, words: Sequence[str], environment: Mapping[str, str], log: int, channel: int) -> int:
        """The pid of a new worker, a child of this process: `words` are its arguments, `log` is its output.

        Waits for a nursery that is not ready. Raises OSError where the kernel has no process for it, Disconnected where
        the nursery is of no more use.
        """
        changed = {name: value for name, value in environment.items() if os.environ.get(name) != value}
        order = pack_document({"words": list(words), "environment": changed})
        _take_in_orphans(True)
        try:
            self._await_ready()
            socket.send_fds(self._socket, [order], [log, channel])
            pid = int(self._socket.recv(64) or 0)
        except OSError:
            pid = 0
        finally:
            _take_in_orphans(False)
        if pid == 0:
            self.close()
            raise Disconnected("the nursery has died, or does not answer")
        if pid < 0:
            raise OSError(-pid, os.strerror(-pid))
        if not _is_child(pid):
            self.close()
            raise Disconnected("the kernel does not hand over the nursery's orphans")
        return pid

    def _await_ready(self) -> None:
        if not self._has_begun:
            self._has_begun = bool(self._socket.recv(64))
            self._socket.settimeout(_ANSWER_WITHIN_S)

    def close(self) -> None:
        """Ends it. The workers that it bore live on."""
        if self.is_open:
            self.is_open = False
            self._socket.close()
            self._process.kill()
            self._process.wait()


def _is_child(pid: int) -> bool:
    """Whether we may wait for it. One that is not ours ends by itself, since its parent is not whom it was told."""
    try:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def _take_in_orphans(whether: bool) -> None:
    """Only while a worker is born: else what workers' own children leave behind would be ours to reap."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, int(whether), 0, 0, 0)
