"""In whose thread a graph in one process works: its own, or that of whoever waits for it."""

from __future__ import annotations

import contextlib
import logging
import os
import select
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, TypeVar

from ..error_text import traceback_of
from ..errors import Disconnected, SlabwireError
from ..host.attempt import attempt
from ..host.interrupts import Interrupts
from ..worker.worker import Worker
from .kept_exceptions import Failures

logger = logging.getLogger("slabwire")

T = TypeVar("T")

# While another thread drives: how often to look whether it still does.
_LOOK_EVERY_S = 0.02
# Turns of work that is never done, such as a stream that nobody stops.
_MOST_AT_ONCE = 100


class Driver:
    """Takes the turns of one worker, which comes with `worker`. Any thread may wait; one at a time works.

    `serve()` answers what was asked of the switchboard. `failed()` is called where a graph with a thread of its own
    cannot go on. Nothing works before `begin`.
    """

    def __init__(
        self, name: str, failures: Failures, serve: Callable[[], None], failed: Callable[[], None], *, in_thread: bool
    ) -> None:
        self._name = name
        self._failures = failures
        self._serve = serve
        self._failed = failed
        self.worker: Worker | None = None
        self._working = threading.Lock()  # held by the thread that takes turns
        self._worker_thread = 0
        self._jobs: SimpleQueue[tuple[Callable[[], Any], Future[Any]]] = SimpleQueue()
        self._job_bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._interrupts = Interrupts(self._job_bell)
        self._is_up = self.has_ended = False
        self._thread: threading.Thread | None = None
        if in_thread:
            self._thread = threading.Thread(target=self._run, name=f"slabwire {name}", daemon=True)
            self._thread.start()

    @property
    def live(self) -> Worker:
        """The worker. Raises Disconnected where there is none any more."""
        if self.worker is None:
            raise Disconnected(f"graph {self._name!r} has ended")
        return self.worker

    def begin(self) -> None:
        """The actors have started. From now on the graph's own thread, if it has one, works."""
        self._is_up = True

    def end(self) -> Worker | None:
        """Takes no more turns. The worker, which is its caller's to close."""
        self._is_up, self.has_ended = False, True
        worker, self.worker = self.worker, None
        return worker

    def close(self) -> None:
        """After `end`."""
        if self._thread is not None:
            self._thread.join()
        os.close(self._job_bell)

    def listen(self) -> None:
        """The worker is built: jobs interrupt its sleep."""
        self.live.loop.add_reader(self._job_bell, self.live.loop.stop)

    def do(self, action: Callable[[], T]) -> T:
        """Runs it where the actors' code runs. Raises what it raises."""
        if self._thread is None:
            with self._turns_taken(), self._interrupts:
                return action()
        future: Future[T] = Future()
        self._jobs.put((action, future))
        # Rings until the job is taken: the worker's own bell may be silenced by a sleep that ends just then.
        os.eventfd_write(self._job_bell, 1)
        return future.result()

    def wait(self, is_over: Callable[[], Any], longest_s: float | None, bell: int = -1) -> None:
        """Drives the graph until `is_over()`, the time has passed, or `bell` is readable. Raises what a handler raised
        that was to end the program: KeyboardInterrupt, say.
        """
        until = None if longest_s is None else time.monotonic() + longest_s
        rung = select.poll()
        if bell >= 0:
            rung.register(bell, select.POLLIN)
        while not (is_over() or (bell >= 0 and rung.poll(0))):
            left_s = None if until is None else until - time.monotonic()
            if left_s is not None and left_s <= 0:
                return
            self.refuse_own_thread()
            if self._thread is not None:
                rung.poll(1000 * min(_LOOK_EVERY_S, _LOOK_EVERY_S if left_s is None else left_s))
                continue
            got: list[bool] = []
            try:
                got += attempt(self._working, _LOOK_EVERY_S)
                if got[0]:  # else another thread drives
                    self._worker_thread = threading.get_ident()
                    self.turn(left_s, bell)
            finally:
                if True in got:
                    self._worker_thread = 0
                    self._working.release()

    def settle(self) -> None:
        """Lets a driven graph do what it can at once, unless somebody drives it already."""
        if self._thread is not None or self.worker is None:
            return
        got: list[bool] = []
        try:
            got += attempt(self._working)
            if got[0]:
                self._worker_thread = threading.get_ident()
                with self._interrupts:
                    self.live.obey()
                for _ in range(_MOST_AT_ONCE):
                    if not self.turn(0.0):
                        break
        finally:
            if True in got:
                self._worker_thread = 0
                self._working.release()

    @contextlib.contextmanager
    def _turns_taken(self) -> Any:
        self.refuse_own_thread()
        with self._working:
            self._worker_thread = threading.get_ident()
            try:
                yield
            finally:
                self._worker_thread = 0

    def refuse_own_thread(self) -> None:
        """Raises SlabwireError in the thread that works for the graph: it would wait for itself."""
        if self._worker_thread == threading.get_ident():
            raise SlabwireError(
                f"a handler of graph {self._name!r} waits for its own graph, which runs in this thread; "
                "use `await self.call(...)` there, or run the graph in processes"
            )

    def turn(self, longest_s: float | None, bell: int = -1) -> bool:
        """One turn of the worker, which sleeps for so long at most; True if it worked."""
        worker = self.live
        worker.own.thread = threading.get_ident()
        with self._interrupts:
            self._serve()
            loop = worker.loop
            if bell >= 0:
                loop.add_reader(bell, loop.stop)
            try:
                worked = worker.turn(longest_s)
            finally:
                if bell >= 0:
                    loop.remove_reader(bell)
        interrupt, self._failures.interrupt = self._failures.interrupt, None
        if interrupt is not None and self._thread is None:
            raise interrupt
        return worked

    def _run(self) -> None:
        """The thread of a graph that has one."""
        self._worker_thread = threading.get_ident()
        while not self.has_ended:
            if self._is_up and self._jobs.empty():
                try:
                    self.turn(None)
                except BaseException as error:
                    logger.error("graph %s cannot go on\n%s", self._name, traceback_of(error))
                    self._is_up = False
                    self._failed()
            else:
                job = self._jobs.get()
                with contextlib.suppress(BlockingIOError):
                    os.eventfd_read(self._job_bell)
                _execute(*job)


def _execute(action: Callable[[], Any], future: Future[Any]) -> None:
    try:
        future.set_result(action())
    except BaseException as error:
        future.set_exception(error)
