"""Tasks, timers and threads that actors begin for themselves, outside of any input.

Tasks are kept until they end, for asyncio keeps none. An exception of a task that nobody takes is logged with the name
of the actor and counted as a failure of the actor. If `on_start` began the task, the actor is a source that has died,
and the worker ends, so that its restart policy decides what comes next.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import weakref
from collections.abc import Callable, Mapping
from contextvars import Context, ContextVar, copy_context
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from ..actor.actor import Actor
from ..error_text import described, place_of, traceback_of
from ..errors import HandlerError, SlabwireError
from .answers import ENDS_PROCESS
from .input_states import FINISHED
from .sends import paced
from .work import Work, current

if TYPE_CHECKING:
    from .cell import Cell

logger = logging.getLogger("slabwire")

# How long an error may lie until it counts as taken by nobody: a task that awaits the failed one needs some rounds of
# the loop.
TAKEN_WITHIN_S = 0.1
_UNTAKEN = "_log_traceback"  # of a Future: it ended with an exception that nobody has asked for


class Owner(NamedTuple):
    """Whose code runs outside of any input. `at_start`: `on_start` itself, and what was begun by it but in no task."""

    actor: str
    at_start: bool


owner: ContextVar[Owner | None] = ContextVar("slabwire_owner", default=None)


@dataclass(slots=True)
class Begun:
    """One task: `owner` is the actor, or (where it was begun for an input) that input. `parent` is the task that began
    it, and may want to know what became of it. `is_source`: `on_start` did. `name` is that of its coroutine.
    """

    owner: str | Work
    parent: asyncio.Task[Any] | None = None
    is_source: bool = False
    name: str = ""


class OwnTasks:
    """Of all actors of one worker. One thread, that of the worker's loop: `thread` is its number.

    `died` is told of the error of a source that has died; by itself it becomes `fatal`, of which the worker ends.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, cells: Mapping[str, Cell]) -> None:
        self.thread = threading.get_ident()
        self.fatal: SlabwireError | None = None
        self.died: Callable[[SlabwireError], None] = self._end_worker
        self.are_over = False  # from the draining on nothing is started again
        self.busy: set[str] = set()  # the actors that have begun any
        self.loop = loop
        self._cells = cells
        self._is_hook = False
        self._starting: dict[str, asyncio.Future[Any] | None] = {}
        self._alive: dict[asyncio.Task[Any], Begun] = {}
        loop.set_task_factory(self._make)
        loop.set_exception_handler(self._heard)

    # -- hooks -------------------------------------------------------------------------------------------------------

    def start(self, actor: str, hook: Callable[[], Any]) -> asyncio.Future[Any] | None:
        """Begins an `on_start`; returns a future of its end, if it is a coroutine."""
        context = copy_context()
        context.run(owner.set, Owner(actor, True))
        self._starting[actor] = None
        result = context.run(hook)
        if not hasattr(result, "__await__"):
            del self._starting[actor]
            return None
        self._is_hook = True  # what it begins is begun at the start still, though it is a task itself
        future: asyncio.Future[Any] = context.run(asyncio.ensure_future, result, loop=self.loop)
        self._is_hook = False
        self._starting[actor] = future
        future.add_done_callback(lambda _: self._starting.pop(actor))
        return future

    def drain(self) -> None:
        """Tells all actors that the graph drains. One whose `on_drain` fails has been told as well."""
        self.are_over = True
        for name, cell in self._cells.items():
            cell.drain()
            context = copy_context()
            context.run(owner.set, Owner(name, False))
            try:
                result: Any = context.run(cell.actor.on_drain)
                if hasattr(result, "__await__"):
                    context.run(asyncio.ensure_future, result, loop=self.loop)
            except ENDS_PROCESS:
                raise
            except BaseException as error:
                cell.answers.note(error, "on_drain raised")
            if type(cell.actor).on_drain is Actor.on_drain and cell.spec.outputs and not cell.inlets.lanes:
                self._cancel_sources(name)

    def _cancel_sources(self, actor: str) -> None:
        """Ends the sources of an actor that gets no inputs and has no `on_drain`: they would send for ever."""
        for task, begun in self._alive.items():
            if begun.is_source and begun.owner == actor:
                task.cancel()

    # -- tasks -------------------------------------------------------------------------------------------------------

    def _make(self, loop: asyncio.AbstractEventLoop, coroutine: Any, **rest: Any) -> asyncio.Task[Any]:
        """The loop's way to make a task."""
        work, name = current.get(), str(getattr(coroutine, "__qualname__", "")) or "without a name"
        if work is not None and work.state is not FINISHED:
            begun = Begun(work, asyncio.current_task(loop), name=name)
            task = asyncio.Task(coroutine, loop=loop, **rest)
        else:
            begun, context = self._begun_outside(work, asyncio.current_task(loop), rest.pop("context", None))
            begun.name = name
            task = asyncio.Task(self._paced(coroutine, begun), loop=loop, context=context, **rest)
        self._alive[task] = task._slabwire = begun  # type: ignore[attr-defined]
        task.add_done_callback(self._ended)
        return task

    def _begun_outside(
        self, work: Work | None, parent: asyncio.Task[Any] | None, context: Context | None
    ) -> tuple[Begun, Context]:
        whose = owner.get()
        context = context or copy_context()
        if whose is None:
            return Begun("" if work is None else work, parent), context
        self.busy.add(whose.actor)
        if not self._is_hook:
            context.run(owner.set, Owner(whose.actor, False))
        is_source = whose.actor in self._starting and self._starting[whose.actor] is parent
        return Begun(whose.actor, parent, is_source), context

    def _paced(self, coroutine: Any, begun: Begun) -> Any:
        cell = self._cells.get(begun.owner) if isinstance(begun.owner, str) else None
        if cell is None or not cell.spec.outputs:
            return coroutine
        slowed: Any = paced(coroutine, cell.outlets.sends)
        slowed.__qualname__ = begun.name
        return slowed

    def _ended(self, task: asyncio.Task[Any]) -> None:
        begun = self._alive.pop(task)
        if not getattr(task, _UNTAKEN):
            begun.parent = None  # else a task that begins the next, and so on, would keep all before it
        else:
            self.loop.call_later(TAKEN_WITHIN_S, self._judge, task, begun)

    def _judge(self, task: asyncio.Task[Any], begun: Begun) -> None:
        """Reports an error that nobody has taken. The task that began the failed one may still take the error, as long
        as it runs; if the failed task is dropped meanwhile, asyncio tells.
        """
        if not getattr(task, _UNTAKEN):
            return
        if begun.parent is None or begun.parent.done():
            self._report(begun, task.exception(), f"its task {begun.name} died")
            return
        dropped = weakref.ref(task)

        def look_again(_: Any) -> None:
            if (kept := dropped()) is not None:
                self.loop.call_later(TAKEN_WITHIN_S, self._judge, kept, begun)

        begun.parent.add_done_callback(look_again)

    def _heard(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """The loop's way to tell of what nobody can be told of: of tasks that were dropped, of timers and callbacks."""
        error = context.get("exception")
        if error is None:
            loop.default_exception_handler(context)
            return
        future, handle = context.get("future"), context.get("handle")
        if future is not None:
            begun = getattr(future, "_slabwire", Begun(""))
            what = f"its task {begun.name} died"
        else:
            begun = self._begun_in(getattr(handle, "_context", None), is_timer=isinstance(handle, asyncio.TimerHandle))
            what = f"{context.get('message')}"
        self._report(begun, error, what)

    @staticmethod
    def _begun_in(context: Context | None, *, is_timer: bool) -> Begun:
        work, whose = (context.get(current), context.get(owner)) if context is not None else (None, None)
        if work is not None:
            return Begun(work)
        return Begun("") if whose is None else Begun(whose.actor, None, is_timer and whose.at_start)

    def thread_died(self, told: threading.ExceptHookArgs) -> None:
        """For `threading.excepthook`. A thread does not say whose it is: it ends nothing."""
        if told.exc_value is not None and not self.loop.is_closed():
            name = told.thread.name if told.thread is not None else "?"
            self.loop.call_soon_threadsafe(self._report, Begun(""), told.exc_value, f"its thread {name} died")

    # -- reports -----------------------------------------------------------------------------------------------------

    def _report(self, begun: Begun, error: BaseException | None, what: str) -> None:
        cell = self._cell_of(begun)
        if error is None:
            return
        if cell is None:
            logger.error("an actor: %s\n%s", what, traceback_of(error))
        elif not begun.is_source or self.are_over:
            cell.answers.note(error, what)
        else:
            place = place_of(error)
            text = f"{cell.instance}: {what}: {described(error)}" + (f" ({place})" if place else "")
            fatal = HandlerError(text)
            fatal.__cause__ = error
            cell.answers.note(error, what, keep_frames=True)
            self.died(fatal)
            self.loop.stop()

    def _end_worker(self, error: SlabwireError) -> None:
        self.fatal = self.fatal or error

    def _cell_of(self, begun: Begun) -> Cell | None:
        whose = begun.owner
        if isinstance(whose, Work):
            port, handler = whose.header.target, whose.handler
            return next((each for each in self._cells.values() if handler and each.handler(port) is handler), None)
        if not whose and len(self._cells) == 1:
            (cell,) = self._cells.values()
            return cell
        return self._cells.get(whose)

    def check_thread(self, actor: str, verb: str) -> None:
        """Raises SlabwireError in any other thread: what the verbs work with has no locks."""
        if threading.get_ident() != self.thread:
            raise SlabwireError(
                f"{actor}: self.{verb} was used in another thread than the worker's; take the loop in on_start "
                "(asyncio.get_running_loop()) and use loop.call_soon_threadsafe(self.emit, ...), or, to wait for room, "
                "asyncio.run_coroutine_threadsafe(self.send(...), loop).result()"
            )
