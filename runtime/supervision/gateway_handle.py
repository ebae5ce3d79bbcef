"""The gateway as its parent sees it: started when wanted, again when it dies or hangs, stopped before the graph."""

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
from typing import Any

import zmq

from ..errors import Disconnected, StartError
from ..host.frames import FrameReader
from ..host.heartbeat import LOOK_EVERY_S, is_stopped
from ..host.run_directory import RunDirectory
from ..postmortem.exit_reason import Ending, ending, late
from ..remote.addresses import is_private, with_port
from ..remote.curve_keys import Pair
from .gateway_watch import Watch
from .knock import Knocker
from .restart import LONGEST_DELAY_S, Allowance, delay_s

logger = logging.getLogger("slabwire")

# It imports numpy and connects to the graph; a loaded machine takes its time.
START_WITHIN_S = 30.0
# For answers that were given to leave; none will from one that has been silent for as long.
STOP_WITHIN_S = 5.0
# As an actor's hang_after_s is by default.
HANG_AFTER_S = 30.0
# One that has not answered for so long is not called ready.
SILENT_AFTER_S = 5.0


class Doorkeeper:
    """Spawned by the supervisor's main thread alone, on its loop."""

    def __init__(
        self, graph: str, directory: RunDirectory, listen: Sequence[str], hang_after_s: float = HANG_AFTER_S
    ) -> None:
        self.graph = graph
        self.address = f"ipc://{directory.path / 'gateway'}"
        # Where it is to listen beside that, and where it does, with the ports and the numbers that it got.
        self._asked = list(listen)
        self.listen = list(listen)
        self.restarts = 0
        self.last_end: Ending | None = None
        self._hang_after_s = hang_after_s
        self._log_path = directory.log("gateway")
        self._process: subprocess.Popen[bytes] | None = None
        self._pidfd = -1
        self._restarts = Allowance()
        self._ended = asyncio.Event()
        self._opening: asyncio.Task[None] | None = None
        self._stopping = self._restarting = False
        # Clients that it had to part with, since too much waited for them.
        self.turned_out = 0
        # Where it tells of each; None until it listens.
        self._near: socket.socket | None = None
        self._keys = os.environ.get("SLABWIRE_KEYS")
        self._pair = Pair(*zmq.curve_keypair()) if self._keys and zmq.has("curve") else None
        self._knocker: Knocker | None = None
        self._watch: Watch | None = None
        self._looking: asyncio.TimerHandle | None = None
        self._overdue: Ending | None = None

    @property
    def pid(self) -> int:
        """0 while there is none."""
        return self._process.pid if self._process is not None else 0

    def status(self) -> dict[str, Any] | None:
        """What the graph's status tells of it; None while nobody wants one."""
        is_wanted = self._opening is not None or self._restarting or (self.listen and not self._stopping)
        if self._process is None and not is_wanted:
            return None
        return {
            "pid": self.pid,
            "state": self._state(),
            "silent_s": self._silence()[0],
            "restarts": self.restarts,
            "turned_out": self.turned_out,
            "last_exit": None if self.last_end is None else self.last_end.text,
            "listen": list(self.listen),
        }

    def _state(self) -> str:
        if self._near is None:
            return "restarting" if self._restarting else "starting"
        return "ready" if self._why_it_hangs(SILENT_AFTER_S) is None else "silent"

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
        elif self._restarting:  # which gave way to this attempt
            self._restart_in(LONGEST_DELAY_S)

    def _look_whether_it_died(self) -> None:
        """A gateway that died while it was being opened is nobody's business but ours."""
        if self._process is None and not self._stopping:
            self._restart_in(0.0)

    async def _start(self) -> None:
        if self._stopping:
            raise StartError(f"graph {self.graph!r} is ending and takes no more clients")
        near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with contextlib.ExitStack() as unless_it_listens:
            unless_it_listens.enter_context(near)
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
            # By its name: whether an address needs keys depends on how it was written. A successor gets the same port.
            self._asked = [with_port(*each) for each in zip(self._asked, self.listen, strict=False)]
            if self._process is not None:  # else it has died since
                unless_it_listens.pop_all()
                self._listen_to(near, str(said.get("key", "")))

    def _command(self, far: socket.socket) -> list[str]:
        command = [sys.executable, "-m", "slabwire.runtime.gateway.main", f"--graph={self.graph}"]
        command += [f"--listen={each}" for each in (self.address, *self._asked)]
        if self._keys:
            command.append(f"--keys={self._keys}")
        if self._pair is not None:
            command.append(f"--parent-key={self._pair.public.decode()}")
        return [*command, "--parent", str(os.getpid()), "--fd", str(far.fileno())]

    def _spawn(self, far: socket.socket) -> None:
        self._ended.clear()
        self._overdue = None
        with open(self._log_path, "ab") as log:
            self._process = subprocess.Popen(
                self._command(far),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[far.fileno()],
                env={**os.environ, "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
                start_new_session=True,
            )
        self._pidfd = os.pidfd_open(self._process.pid)
        asyncio.get_running_loop().add_reader(self._pidfd, self._reap)

    # -- while it lives ----------------------------------------------------------------------------------------------

    def _listen_to(self, near: socket.socket, server_key: str) -> None:
        near.setblocking(False)
        self._near = near
        self._restarting = False
        asyncio.get_running_loop().add_reader(near, self._count_turned_out)
        self._knocker = self._knocker or Knocker(self._pair)
        pairs = zip(self._asked, self.listen, strict=False)
        guarded = {found: "" if is_private(asked) else server_key for asked, found in pairs}
        self._watch = Watch(self._knocker, {self.address: "", **guarded})
        self._look_later()

    def _count_turned_out(self) -> None:
        with contextlib.suppress(OSError):
            if self._near is not None and (told := self._near.recv(4096)):
                self.turned_out += len(told)
                return
        if self._near is not None:  # it ends
            asyncio.get_running_loop().remove_reader(self._near)

    def _silence(self) -> tuple[float, str]:
        return self._watch.silence() if self._watch is not None else (0.0, "")

    def _look_later(self) -> None:
        every_s = min(LOOK_EVERY_S, self._hang_after_s / 2)
        self._looking = asyncio.get_running_loop().call_later(every_s, self._look)

    def _look(self) -> None:
        """Kills one that hangs: `_reap` then sees to its successor."""
        why = self._why_it_hangs(self._hang_after_s)
        if why is None:
            self._look_later()
            return
        logger.error("the gateway %s; it is killed", why)
        self._overdue = late("hang", self._hang_after_s)
        self._signal(signal.SIGKILL)

    def _why_it_hangs(self, limit_s: float) -> str | None:
        """In words; None for one that gets on, or does not listen yet."""
        if self._process is not None and is_stopped(self._process.pid):
            return "was stopped by a signal"
        silent_s, address = self._silence()
        return f"did not answer at {address} for {silent_s:.1f} s" if silent_s > limit_s else None

    def _reap(self) -> None:
        process = self._process
        if process is None:
            return
        status = process.wait()
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        self._process, self._pidfd = None, -1
        self._hear_no_more()
        self.last_end = ending(status, overdue=self._overdue)
        self._ended.set()
        if self._stopping or self._opening is not None:  # then whoever opens it is told
            return
        # A client that makes it die again and again must not end the graph: it is tried for ever, slowly.
        is_allowed = self._restarts.admit(self.graph, time.monotonic())
        wait_s = delay_s(self._restarts.count() - 1, random.random()) if is_allowed else LONGEST_DELAY_S
        logger.warning("the gateway is gone (%s); it is started again in %.2f s", self.last_end, wait_s)
        self._restart_in(wait_s)

    def _hear_no_more(self) -> None:
        if self._looking is not None:
            self._looking.cancel()
        if self._watch is not None:
            self._watch.end()
        if self._near is not None:
            self._count_turned_out()  # what it told last
            asyncio.get_running_loop().remove_reader(self._near)
            self._near.close()
        self._near = self._looking = self._watch = None

    def _restart_in(self, wait_s: float) -> None:
        self._restarting = True
        asyncio.get_running_loop().call_later(wait_s, self._restart)

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
            self._restart_in(LONGEST_DELAY_S)
        else:
            self._look_whether_it_died()

    async def close(self, *, within_s: float = STOP_WITHIN_S) -> None:
        """Stops it: the answers that it has are still sent, if there is time and it does not hang."""
        self._stopping, self._restarting = True, False
        why = self._why_it_hangs(STOP_WITHIN_S)
        if why is not None:
            logger.warning("the gateway %s; it is killed", why)
            within_s = 0.0
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
        if self._knocker is not None:
            await self._knocker.close()

    def _signal(self, number: int) -> None:
        if self._pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, number)
