"""The gateway as its parent sees it: started when wanted, asked whether it answers, stopped before the graph."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import sys
from collections.abc import Callable, Sequence
from typing import Any

import zmq

from ..control.gateway import FIRST_WORDS, CannotListen, Listening
from ..errors import Disconnected, ProtocolError, StartError
from ..host.frames import FrameReader
from ..host.process_usage import is_stopped
from ..host.run_directory import RunDirectory
from ..remote.addresses import is_private, with_port
from ..remote.curve_keys import Pair
from ..remote.gateway_watch import Knocker, Watch
from .child import Child
from .child_states import Life
from .fork_server import environment_for, start_alone

logger = logging.getLogger("slabwire")

# It imports numpy and connects to the graph; a loaded machine takes its time.
START_WITHIN_S = 30.0
# For answers that were given to leave; none will from a gateway that has been silent for as long.
STOP_WITHIN_S = 5.0
# As an actor's hang_after_s is by default.
HANG_AFTER_S = 30.0
# A gateway that has not answered for so long is not called ready.
SILENT_AFTER_S = 5.0


class GatewayHandle(Child):
    """The supervisor's, on its loop. `exited(self)` is also called when a start has failed: `error` then says why."""

    def __init__(
        self,
        directory: RunDirectory,
        listen: Sequence[str],
        exited: Callable[[GatewayHandle], None],
        hang_after_s: float = HANG_AFTER_S,
    ) -> None:
        super().__init__("gateway", Life(START_WITHIN_S, hang_after_s), directory, exited)
        self.graph = directory.path.name
        self.address = f"ipc://{directory.path / 'gateway'}"
        # Where the gateway was asked to listen beside that, and the addresses that it got, with their ports.
        self._asked = list(listen)
        self.listen = list(listen)
        # How many clients the gateway has turned out, since too much waited for them.
        self.turned_out = 0
        # Whether it has ever listened: from then on it is wanted until the graph ends.
        self._has_listened = False
        self._opening: asyncio.Task[None] | None = None
        # By this the gateway tells of each client that it turned out; None until the gateway listens.
        self._near: socket.socket | None = None
        self._keys = os.environ.get("SLABWIRE_KEYS")
        self._pair = Pair(*zmq.curve_keypair()) if self._keys and zmq.has("curve") else None
        self._knocker: Knocker | None = None
        self._watch: Watch | None = None

    @property
    def is_missing(self) -> bool:
        """Whether it ought to listen, and nobody is about to start it."""
        return self._has_listened and not (self.told_to_stop or self.is_alive or self._opening)

    def status(self) -> dict[str, Any] | None:
        """What the graph's status tells of it; None while nobody wants one."""
        is_wanted = self._opening or ((self._has_listened or self.listen) and not self.told_to_stop)
        if not self.is_alive and not is_wanted:
            return None
        return {
            "pid": self.pid if self.is_alive else 0,
            "state": self._state(),
            "silent_s": self._silence()[0],
            "restarts": self.restarts,
            "turned_out": self.turned_out,
            "last_exit": self.last_exit,
            "listen": list(self.listen),
        }

    def _state(self) -> str:
        if self._near is None:
            return "restarting" if self._has_listened else "starting"
        return "ready" if self._why_it_hangs(SILENT_AFTER_S) is None else "silent"

    # -- the beginning -----------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Returns when the gateway listens, which it may do already. Raises StartError with the cause."""
        self.start()
        if self._opening is not None:
            await asyncio.shield(self._opening)

    def start(self) -> None:
        """Begins to start it, unless it lives or is being started. `open` waits for that, `exited` tells of failure."""
        if not self.is_alive and self._opening is None:
            self._opening = asyncio.get_running_loop().create_task(self._start())
            self._opening.add_done_callback(self._opened)

    def _opened(self, opening: asyncio.Task[None]) -> None:
        self._opening = None
        error = None if opening.cancelled() else opening.exception()
        self.error = None if error is None else str(error)
        if not self.is_alive:  # it could not start, or has died since
            self._exited(self)

    async def _start(self) -> None:
        if self.told_to_stop:
            raise StartError(f"graph {self.graph!r} is ending and takes no more clients")
        near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with contextlib.ExitStack() as unless_it_listens:
            unless_it_listens.enter_context(near)
            with far, self._log() as log:
                self._spawned(start_alone(self._command(far), environment_for(1), log.fileno(), far.fileno()))
            said = await self._first_word(near)
            self.listen = [each for each in said.addresses if each != self.address]
            # By the name that was asked for: whether an address needs keys depends on how it was written. A successor
            # gets the same port.
            self._asked = [with_port(*each) for each in zip(self._asked, self.listen, strict=False)]
            self._has_listened = True
            self.became_ready()
            if self.is_ready:  # else it has died since
                unless_it_listens.pop_all()
                self._listen_to(near, said.key)

    def _command(self, far: socket.socket) -> list[str]:
        command = [sys.executable, "-m", "slabwire.runtime.gateway.main", f"--graph={self.graph}"]
        command += [f"--listen={each}" for each in (self.address, *self._asked)]
        if self._keys:
            command.append(f"--keys={self._keys}")
        if self._pair is not None:
            command.append(f"--parent-key={self._pair.public.decode()}")
        return [*command, "--parent", str(os.getpid()), "--fd", str(far.fileno())]

    async def _first_word(self, near: socket.socket) -> Listening:
        """Where it listens. Raises StartError, after its end, if it does not."""
        near.settimeout(self.life.start_within_s)
        try:
            said = FIRST_WORDS.read(await asyncio.to_thread(FrameReader(near).read))
        except (Disconnected, ProtocolError, TimeoutError):
            self.kill()
            said = CannotListen(f"the gateway did not start; see {self._directory.log(self.name)}")
        if isinstance(said, CannotListen):
            await self.wait_ended(None)
            raise StartError(said.error)
        return said

    # -- while it lives ----------------------------------------------------------------------------------------------

    def _listen_to(self, near: socket.socket, server_key: str) -> None:
        near.setblocking(False)
        self._near = near
        asyncio.get_running_loop().add_reader(near, self._count_turned_out)
        self._knocker = self._knocker or Knocker(self._pair)
        pairs = zip(self._asked, self.listen, strict=False)
        guarded = {found: "" if is_private(asked) else server_key for asked, found in pairs}
        self._watch = Watch(self._knocker, {self.address: "", **guarded})

    def _count_turned_out(self) -> None:
        with contextlib.suppress(OSError):
            if self._near is not None and (told := self._near.recv(4096)):
                self.turned_out += len(told)
                return
        if self._near is not None:  # it ends
            asyncio.get_running_loop().remove_reader(self._near)

    def end_if_hung(self) -> None:
        """Kills a gateway that hangs, after having it write its stacks. `exited` then sees to its successor."""
        within_s = self.life.hang_after_s
        why = self._why_it_hangs(within_s) if self.life.state == "ready" else None
        if why is not None:
            self._kill_late("hang", within_s, f"the gateway {why}")

    def _silence(self) -> tuple[float, str]:
        return self._watch.silence() if self._watch is not None else (0.0, "")

    def _why_it_hangs(self, limit_s: float) -> str | None:
        """In words; None for a gateway that gets on, or does not listen yet."""
        if self.is_alive and is_stopped(self.pid):
            return "was stopped by a signal"
        silent_s, address = self._silence()
        return f"did not answer at {address} for {silent_s:.1f} s" if silent_s > limit_s else None

    # -- the end -----------------------------------------------------------------------------------------------------

    def _ended(self, status: int) -> None:
        if self._watch is not None:
            self._watch.end()
        if self._near is not None:
            self._count_turned_out()  # what it told last
            asyncio.get_running_loop().remove_reader(self._near)
            self._near.close()
        self._near = self._watch = None
        super()._ended(status)

    async def close(self, *, within_s: float = STOP_WITHIN_S) -> None:
        """Stops it: the answers that it has are still sent, if there is time and it does not hang."""
        self.told_to_stop = True
        why = self._why_it_hangs(STOP_WITHIN_S)
        if why is not None:
            logger.warning("the gateway %s; it is killed", why)
            within_s = 0.0
        self.retire()
        await self.wait_ended(within_s)
        self.kill()
        await self.wait_ended(None)
        if self._opening is not None:
            await asyncio.wait([self._opening])
        if self._knocker is not None:
            await self._knocker.close()
