"""The gateway as its parent sees it: started when it is wanted, again when it dies, stopped before the graph."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence

from .errors import Disconnected, StartError
from .frames import FrameReader
from .restart import LONGEST_DELAY_S, Allowance, delay_s
from .rundir import RunDirectory

logger = logging.getLogger("slabwire")

# It imports numpy and connects to the graph; a loaded machine takes its time.
START_WITHIN_S = 30.0
# For answers that were given to leave.
STOP_WITHIN_S = 5.0


class Doorkeeper:
    """Spawned by the supervisor's main thread alone, on its loop."""

    def __init__(self, graph: str, directory: RunDirectory, listen: Sequence[str]) -> None:
        self.graph = graph
        self.address = f"ipc://{directory.path / 'gateway'}"
        # Where it listens beside that; once it does, with the ports that it got.
        self.listen = list(listen)
        self.restarts = 0
        self._log_path = directory.log("gateway")
        self._process: subprocess.Popen[bytes] | None = None
        self._pidfd = -1
        self._restarts = Allowance()
        self._ended = asyncio.Event()
        self._opening: asyncio.Task[None] | None = None
        self._stopping = False

    @property
    def pid(self) -> int:
        """0 while there is none."""
        return self._process.pid if self._process is not None else 0

    async def open(self) -> None:
        """Returns when the gateway listens, which it may do already. Raises StartError with the cause."""
        if self._process is None and self._opening is None:
            self._opening = asyncio.get_running_loop().create_task(self._start())
            self._opening.add_done_callback(self._opened)
        if self._opening is not None:
            await asyncio.shield(self._opening)

    def _opened(self, opening: asyncio.Task[None]) -> None:
        self._opening = None
        if not opening.cancelled() and opening.exception() is None:  # else whoever waited has it
            self._look_whether_it_died()

    def _look_whether_it_died(self) -> None:
        """A gateway that died while it was being opened is nobody's business but ours."""
        if self._process is None and not self._stopping:
            asyncio.get_running_loop().call_soon(self._restart)

    async def _start(self) -> None:
        if self._stopping:
            raise StartError(f"graph {self.graph!r} is ending and takes no more clients")
        near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with near:
            with far:
                self._spawn(far)
            near.settimeout(START_WITHIN_S)
            try:
                said = await asyncio.to_thread(FrameReader(near).read)
            except (Disconnected, TimeoutError):
                self._signal(signal.SIGKILL)
                await self._ended.wait()
                raise StartError(f"the gateway did not start; see {self._log_path}") from None
        if "error" in said:
            await self._ended.wait()
            raise StartError(str(said["error"]))
        self.listen = [str(each) for each in said["addresses"] if each != self.address]

    def _spawn(self, far: socket.socket) -> None:
        command = [sys.executable, "-m", "slabwire.runtime.gateway", "--graph", self.graph]
        for each in (self.address, *self.listen):
            command += ["--listen", each]
        keys = os.environ.get("SLABWIRE_KEYS")
        if keys:
            command += ["--keys", keys]
        command += ["--parent", str(os.getpid()), "--fd", str(far.fileno())]
        self._ended.clear()
        with open(self._log_path, "ab") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[far.fileno()],
                env={**os.environ, "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
                start_new_session=True,
            )
        self._pidfd = os.pidfd_open(self._process.pid)
        asyncio.get_running_loop().add_reader(self._pidfd, self._reap)

    def _reap(self) -> None:
        process = self._process
        if process is None:
            return
        status = process.wait()
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        self._process, self._pidfd = None, -1
        self._ended.set()
        if self._stopping or self._opening is not None:  # then whoever opens it is told
            return
        # A client that makes it die again and again must not end the graph: it is tried for ever, slowly.
        is_allowed = self._restarts.admit(self.graph, time.monotonic())
        wait_s = delay_s(self._restarts.count() - 1, random.random()) if is_allowed else LONGEST_DELAY_S
        logger.warning("the gateway ended with status %d; it is started again in %.2f s", status, wait_s)
        loop.call_later(wait_s, self._restart)

    def _restart(self) -> None:
        if not self._stopping and self._process is None and self._opening is None:
            self.restarts += 1
            loop = asyncio.get_running_loop()
            self._opening = loop.create_task(self._start())
            self._opening.add_done_callback(self._restarted)

    def _restarted(self, opening: asyncio.Task[None]) -> None:
        self._opening = None
        error = None if opening.cancelled() else opening.exception()
        if error is not None and not self._stopping:
            logger.error("the gateway could not be started again: %s", error)
            asyncio.get_running_loop().call_later(LONGEST_DELAY_S, self._restart)
        else:
            self._look_whether_it_died()

    async def close(self, *, within_s: float = STOP_WITHIN_S) -> None:
        """Stops it: the answers that it has are still sent, if there is time."""
        self._stopping = True
        self._signal(signal.SIGTERM)
        if self._process is not None and within_s:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(within_s):
                    await self._ended.wait()
        if self._process is not None:
            self._signal(signal.SIGKILL)
            await self._ended.wait()
        if self._opening is not None:
            await asyncio.wait([self._opening])

    def _signal(self, number: int) -> None:
        if self._pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, number)
