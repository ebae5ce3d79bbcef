"""What a worker is in a forked child of one of its handlers: nothing that may be touched.

The child has copies of the worker's objects and none of its memory. So whatever the actor asks of them is refused, and
a child that comes back from its handler ends there: the worker, which goes on elsewhere, is not its business.
"""

from __future__ import annotations

import os
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NoReturn
from weakref import ref

from ..error_text import exit_code, is_of, traceback_of
from ..errors import SlabwireError
from ..host.forks import part_in_children

if TYPE_CHECKING:
    from ..cell.binding import CellBinding
    from .worker import Worker

_REFUSED = (
    "a process that a handler has forked has no part in the graph: it can neither loan, emit, call, keep nor listen; "
    "let it give its result to the handler (by a Pool, a Queue, a pipe), or connect as any client does: "
    "slabwire.connect(...)"
)
_AWAITS = (
    "a process that a coroutine has forked cannot await there, for the loop is its parent's; let it run one of its "
    "own, asyncio.run(...), and end by os._exit"
)
_kept: list[Any] = []  # in a child: what its parent's objects held, so that nothing of it is finalized


class Partition:
    """Keeps a worker from the forked children of its process, as long as this object is kept."""

    def __init__(self, worker: Worker) -> None:
        self._worker = ref(worker)
        self._has_parted = False  # so has every child of this child
        part_in_children(self)

    def part(self) -> None:
        """In the child."""
        worker = self._worker()
        if worker is None or self._has_parted:
            return
        self._has_parted = True
        worker._selector.part(_end_awaiting)
        for binding in worker._bindings:
            _refuse(binding)
        beyond = _Beyond()
        for cell in worker.cells.values():
            cell._stats.words = beyond  # type: ignore[assignment]
            for each in cell.behind_handlers():
                _replace_all(each, beyond)
        _replace_all(worker, beyond)
        # What a round of the loop returns to.
        vars(worker).update(dict.fromkeys(("_selector", "caller"), _BeyondTheLoop()))


def _refuse(binding: CellBinding) -> None:
    refusing: Any = _Refusing()
    own_account: Any = SimpleNamespace(
        own_account=binding._outlets.own_account, send=refusing.send, sends=refusing, delegations=refusing
    )
    binding._endpoint = binding._calls = binding._custody = refusing
    binding._outlets = own_account  # which `context` tells of


def _replace_all(each: object, by: object) -> None:
    _kept.append(dict(vars(each)))
    vars(each).update(dict.fromkeys(vars(each), by))


class _Refusing:
    """In the place of what the verbs of an actor use."""

    def __getattr__(self, name: str) -> NoReturn:
        raise SlabwireError(_REFUSED)

    def send(self, *_: Any) -> NoReturn:
        raise SlabwireError(_REFUSED)


class _Beyond:
    """In the place of all that is behind a handler: who gets there has come back from it."""

    def __getattr__(self, _: Any) -> NoReturn:
        end_child(sys.exc_info()[1])

    def __call__(self, *_: Any) -> NoReturn:
        end_child(sys.exc_info()[1])

    __getitem__ = __setitem__ = __call__


class _BeyondTheLoop:
    """In the place of the worker's selector and caller, which it looks at after each run of its loop: a child that gets
    there has left the loop while its coroutine awaits.
    """

    def __getattr__(self, _: str) -> NoReturn:
        _end_awaiting()

    def __setattr__(self, *_: Any) -> NoReturn:
        _end_awaiting()


def _end_awaiting(_timeout: float | None = None) -> NoReturn:
    end_child(SlabwireError(_AWAITS))


def end_child(error: BaseException | None) -> NoReturn:
    """Ends a forked child, with nothing of its parent's: no hook at exit, no clean-up.

    Its status is what sys.exit was called with; 1 after another exception, which is printed; else 0.
    """
    status: Any = 0
    if is_of(error, SystemExit):
        status = exit_code(error)
    elif error is not None and not is_of(error, (StopIteration, StopAsyncIteration)):
        status = traceback_of(error)
    if isinstance(status, str):
        sys.stderr.write(f"{status}\n")
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit((status or 0) & 0xFF if isinstance(status, (int, type(None))) else 1)
