"""Runs of batched handlers: inputs are gathered until a batch is full, or its first input has waited long enough."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import copy_context
from typing import Any

from ...shm.bell import now_ns
from ..actor.handler import Handler
from ..errors import HandlerError
from ..spec import BatchSpec
from .answers import Answers
from .outlets import Outlets
from .runs import HandlerRunner, Runs
from .work import Work, current


class Batcher:
    """Gathers inputs by the number of their port; `specs` says how. No I/O; time is an argument, in nanoseconds."""

    def __init__(self, specs: Mapping[int, BatchSpec]) -> None:
        self._specs = specs
        self._gathering: dict[int, list[Work]] = {}

    def add(self, work: Work) -> None:
        """One more input of a batch."""
        self._gathering.setdefault(work.header.target, []).append(work)

    def remove(self, work: Work) -> None:
        """Takes an input back, if it is waiting here."""
        works = self._gathering.get(work.header.target, [])
        if work in works:
            works.remove(work)
            if not works:
                del self._gathering[work.header.target]

    def take_due(self, now_ns: int) -> list[Work]:
        """A batch that is full or has waited enough, at most `max_size` long; empty if there is none."""
        for number, works in self._gathering.items():
            size = self._specs[number].max_size
            if len(works) >= size or now_ns >= self._due_ns(number):
                del self._gathering[number]
                if works[size:]:
                    self._gathering[number] = works[size:]
                return works[:size]
        return []

    def next_due_ns(self) -> int:
        """When the next batch is due; 0 if none is gathering."""
        return min((self._due_ns(number) for number in self._gathering), default=0)

    def _due_ns(self, number: int) -> int:
        return self._gathering[number][0].started_ns + int(self._specs[number].max_wait_s * 1e9)


class Batches(HandlerRunner):
    """Runs batches that are due."""

    def __init__(self, runs: Runs, outlets: Outlets, answers: Answers, specs: Mapping[int, BatchSpec]) -> None:
        super().__init__(runs, outlets, answers)
        self._batcher = Batcher(specs)

    def start(self, work: Work, handler: Handler) -> None:  # noqa: ARG002 - the batch asks for it when it is due
        """An input joins the batch that is gathering."""
        self._batcher.add(work)

    def stop(self, work: Work) -> bool:
        """Takes an input out of its batch; False: it does not go on by itself."""
        self._batcher.remove(work)
        return False

    def advance(self) -> bool:
        """Runs one batch that is due; True if there was any."""
        works = self._batcher.take_due(now_ns())
        if works and (handler := works[0].handler) is not None:
            self._run(handler, works)
        return bool(works)

    def next_due_ns(self) -> int:
        """When the next batch is due; 0 if none is gathering."""
        return self._batcher.next_due_ns()

    def _run(self, handler: Handler, works: list[Work]) -> None:
        bound = [(work, item) for work in works if (item := self._item_of(work, handler)) is not None]
        started = now_ns()
        self._stats.begin(started)
        token = current.set(works[0])
        try:
            self._answer(handler, [work for work, _ in bound], [item[0] for _, item in bound])
        finally:
            current.reset(token)
            self._stats.end(started, now_ns())
        for work in works:
            self._runs.done(work)

    def _item_of(self, work: Work, handler: Handler) -> tuple[Any] | None:
        """What a message brings to its batch, in a tuple; None, with an error to its caller, if it does not fit."""
        try:
            return (work.take_arguments(handler)[str(handler.field)],)
        except BaseException as error:
            self._answers.fail(work, error)
            return None

    def _answer(self, handler: Handler, works: list[Work], items: list[Any]) -> None:
        try:
            results = list(copy_context().run(handler.function, **{str(handler.field): items})) if works else []
            if len(results) != len(works):
                raise HandlerError(
                    f"{handler.owner}.{handler.spec.port} answered {len(results)} of {len(works)} inputs"
                )
        except BaseException as error:
            for work in works:
                self._answers.fail(work, error)
            return
        for work, result in zip(works, results, strict=True):
            try:
                self._answers.give(work, handler, result)
            except BaseException as error:
                self._answers.fail(work, error)
