"""A graph that was started by this process: its client, its status, its end."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ..clients.async_client import AsyncClient
from ..clients.control import Control
from ..control.owner import EVENTS, JOBS, GraphFailed, GraphReady, GraphStopped, RunGraph
from ..control.verbs import Status
from ..errors import Disconnected, StartError
from ..graph.node import NAME, NAME_RULE
from ..host.descriptors import FOR_A_CONNECTION, require_free
from ..host.forks import keep_from_children
from ..host.frames import FrameReader, write_frame
from ..host.inherited import fill_standard_descriptors, inherited_sockets
from ..host.run_directory import graph_directory
from ..postmortem.stopped import Stopped
from ..spec import GraphSpec
from .launch import AsyncStarted, Launch, Started

logger = logging.getLogger("slabwire")

# Over and above the time to drain: for on_stop hooks and the supervisor's own end.
_STOP_MARGIN_S = 15.0


class Running(Started):
    """A running graph, as `graph.run()` gives it. Leaving its `with` drains and stops it; nothing stays behind.

    No signal handlers are installed. When this process dies, however it dies, the graph drains and ends.
    """

    def __init__(self, spec: GraphSpec, name: str, job: RunGraph) -> None:
        super().__init__(name)
        self.spec = spec
        self.directory: Path = graph_directory(self.name)
        self._drain_timeout_s = job.drain_timeout_s
        self.failure: str | None = None  # why the graph gave up, if it did
        self.stopped = Stopped()  # once it has: what was cut off, and what did not end as it should
        self._owner = os.getpid()
        self._was_stopped = False
        fill_standard_descriptors()
        require_free(FOR_A_CONNECTION, f"starting graph {self.name!r}", StartError)
        self._tie, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        keep_from_children(self._tie)
        with far:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "slabwire.runtime.supervision.main", "--fd", str(far.fileno())],
                stdin=subprocess.DEVNULL,
                pass_fds=[far.fileno(), *job.inherited],
                start_new_session=True,
            )
        try:
            write_frame(self._tie, JOBS.document(job))
            self._await_ready()
        except BaseException:
            self.kill()
            raise

    def _await_ready(self) -> None:
        try:
            event = EVENTS.read(FrameReader(self._tie).read())
        except Disconnected:
            raise StartError(
                f"the supervisor of graph {self.name!r} ended with status {self._process.wait()}"
            ) from None
        if isinstance(event, GraphReady):
            return
        failed = event if isinstance(event, GraphFailed) else GraphFailed("it was stopped")
        error = StartError(f"graph {self.name!r} did not start: {failed.error}")
        error.detail = failed.detail
        raise error

    @property
    def pid(self) -> int:
        """Of the supervisor."""
        return self._process.pid

    def status(self) -> dict[str, Any]:
        """What `slabwire ps` and `top` show, as a dict."""
        with Control(self.name) as control:
            return control.request(Status())

    def wait(self, timeout_s: float | None = None) -> int | None:
        """Waits for the graph to end by itself; its supervisor's exit status, or None if it still runs. `failure` then
        says why it gave up, if it did.
        """
        try:
            status = self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None
        self._hear_last_words()
        # Where SIGCHLD is ignored, or others wait for all children, the status is lost: a lost one is taken for 0.
        return status or int(not self._was_stopped or self.failure is not None)

    def _hear_last_words(self) -> None:
        """What the supervisor, which has ended, had to say since it was ready."""
        with contextlib.suppress(Disconnected, OSError):
            self._tie.settimeout(1.0)  # it is at its end, unless somebody else has inherited the other one
            frames = FrameReader(self._tie)
            while True:
                event = EVENTS.read(frames.read())
                if isinstance(event, GraphFailed):
                    self.failure = self.failure or event.error
                elif isinstance(event, GraphStopped):
                    self._was_stopped = True
                    self.stopped = Stopped(event.cut_off, event.failed)
                    return

    def stop(self) -> int:
        """Drains and stops; returns the supervisor's exit status. Stops at once what does not end in time.

        In a forked child of the process that started the graph it does nothing: the graph is not the child's.
        """
        if os.getpid() != self._owner:
            return 0
        if self._client is not None:
            self._client.withdraw()
        self._say(b"s")
        status = self.wait(self._drain_timeout_s + _STOP_MARGIN_S)
        self._close_client()  # not before: what other threads wait for is drained
        return self.kill() if status is None else self._ended(status)

    def kill(self) -> int:
        """Stops now: work in flight is lost."""
        self._close_client()
        self._say(b"k")
        status = self.wait(_STOP_MARGIN_S)
        if status is None:
            self._process.kill()
            status = self._process.wait()
        return self._ended(status)

    def _ended(self, status: int) -> int:
        self._tie.close()
        return status

    def leave(self) -> None:
        """Stops, and warns in the log of this process (`slabwire`) of what was cut off."""
        self.stop()
        if not self.stopped.is_clean:
            logger.warning("graph %s was stopped: %s", self.name, self.stopped.text(self.name))

    def _say(self, order: bytes) -> None:
        with contextlib.suppress(OSError):
            self._tie.sendall(order)

    def _close_client(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.leave()


class AsyncRunning(AsyncStarted[Running]):
    """What `async with graph.run()` gives: the same, with an asyncio client, and nothing that blocks the loop."""

    @property
    def directory(self) -> Path:
        return self.running.directory


def start(
    spec: GraphSpec,
    *,
    name: str | None = None,
    drain_timeout_s: float = 10.0,
    listen: str | None = None,
    rebalance: bool = False,
) -> Running:
    """Starts a supervisor for the graph and waits until all its actors are ready.

    `name` runs it under another name than its own; `listen` also takes calls at a tcp:// address; `rebalance` moves
    workers off saturated cores. Raises StartError with the reason.
    """
    if name is not None and not NAME.fullmatch(name):
        raise StartError(f"a graph cannot run under the name {name!r}; it must consist of {NAME_RULE}")
    job = RunGraph(spec.to_plain(), name, drain_timeout_s, listen, rebalance, inherited_sockets())
    return Running(spec, name or spec.name, job)


def launch(spec: GraphSpec, **options: Any) -> Launch[Running, AsyncRunning]:
    """A graph that `start` will start with these options."""
    begin = partial(start, spec, **options)
    return Launch(begin, begin, AsyncRunning, AsyncClient)
