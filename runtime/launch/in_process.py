"""A graph that runs in this process, as `graph.run(in_process=True)` gives it: for a debugger, a profiler, coverage."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from functools import partial, partialmethod
from typing import Any

from ..actor.actor import Actor
from ..clients.async_client import AsyncClient
from ..clients.client import Client
from ..error_text import described, is_of, text_of
from ..errors import LoadError, SlabwireError, StartError
from ..postmortem.stopped import Stopped
from ..spec import GraphSpec
from ..supervision.status import actors_of, edges_of
from .in_process_engine import WORKER, Codes, InProcessEngine
from .launch import AsyncStarted, Launch, Started

logger = logging.getLogger("slabwire")


class UnhurriedClient(Client):
    """A client whose calls have no timeout by default: somebody may be looking at a handler."""

    call = partialmethod(Client.call, timeout_s=None)


class UnhurriedAsyncClient(AsyncClient):
    """The same for asyncio."""

    call = partialmethod(AsyncClient.call, timeout_s=None)


class RunningInProcess(Started):
    """A running graph. It works while a client waits, in `wait`, and while it drains at the end.

    `actors` holds the instances by name, to be looked at.
    """

    client_type = UnhurriedClient

    def __init__(self, engine: InProcessEngine, drain_timeout_s: float) -> None:
        super().__init__(engine.name)
        self._engine = engine
        self._drain_timeout_s = drain_timeout_s
        self._started_unix_s = time.time()
        self.pid = os.getpid()

    @property
    def actors(self) -> dict[str, Actor]:
        """The instances by name (`scale`, or `scale[0]` of several), as they are."""
        return self._engine.actors

    @property
    def stopped(self) -> Stopped:
        """Once it has: what was cut off."""
        return self._engine.stopped

    def status(self) -> dict[str, Any]:
        """Of what `slabwire ps` and `top` show what there is here, as a dict."""
        self._engine.settle()
        board = self._engine.board
        with self._engine.serving:
            (peer,) = (each for each in board.peers.values() if each.instances)
            worker = {"name": WORKER, "pid": self.pid, "state": "ready", "restarts": 0, **board.worker_stats(peer)}
            return {
                "graph": self.name,
                "pid": self.pid,
                "state": "ready",
                "not_ready": [],
                "started_unix_s": self._started_unix_s,
                "clients": len(board.clients()),
                "memory_bytes": sum(segment.nbytes for _, _, segment in board.segments()),
                "workers": [{**worker, "actors": actors_of(board, peer)}],
                "edges": edges_of(board, lambda _: True),
            }

    def wait(self, timeout_s: float | None = None) -> None:
        """Lets the graph work for so long, or until Ctrl-C."""
        self._engine.wait(lambda: False, timeout_s)

    def stop(self) -> None:
        """Drains and stops: `on_stop` runs, and nothing is left. Nothing in a forked child, which has no graph."""
        if os.getpid() != self.pid:
            return
        if self._client is not None:
            self._client.withdraw()
        try:
            self._engine.stop(self._drain_timeout_s)
        finally:
            if self._client is not None:
                self._client.close()
        if not self.stopped.is_clean:
            logger.warning("graph %s was stopped: %s", self.name, self.stopped.text(self.name))

    def kill(self) -> None:
        """Stops without draining."""
        self._drain_timeout_s = 0.0
        self.stop()


class AsyncRunningInProcess(AsyncStarted[RunningInProcess]):
    """What `async with graph.run(in_process=True)` gives: the graph has a thread of its own."""

    @property
    def actors(self) -> dict[str, Actor]:
        """The instances by name. Their code runs in the graph's thread."""
        return self.running.actors


def launch_in_process(
    name: str, spec: GraphSpec, codes: Codes, drain_timeout_s: float
) -> Launch[RunningInProcess, AsyncRunningInProcess]:
    """A graph that will run here."""
    begin = partial(_start, name, spec, codes, drain_timeout_s)
    return Launch(begin, partial(begin, in_thread=True), AsyncRunningInProcess, UnhurriedAsyncClient)


def _start(
    name: str, spec: GraphSpec, codes: Codes, drain_timeout_s: float, *, in_thread: bool = False
) -> RunningInProcess:
    engine = InProcessEngine(name, spec, codes, in_thread=in_thread or _has_loop())
    try:
        engine.start()
    except StartError:
        raise
    except Exception as error:
        text = text_of(error) if is_of(error, SlabwireError) else described(error)
        failed = StartError(f"graph {name!r} did not start: {text}")
        raise failed from (error.__cause__ if isinstance(error, LoadError) else error)
    return RunningInProcess(engine, drain_timeout_s)


def _has_loop() -> bool:
    """Whether an event loop runs in this thread, as in a notebook: then the graph's own cannot."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
