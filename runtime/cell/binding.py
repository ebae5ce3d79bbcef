"""What an actor's verbs do inside a worker."""

from __future__ import annotations

import socket
from collections.abc import AsyncGenerator, Iterable, Mapping
from typing import Any

from numpy.typing import DTypeLike, NDArray

from ...shm.block import loaned_block
from ...shm.layout import Layout
from ..actor.actor import Actor
from ..actor.binding import Shape
from ..actor.context import Context
from ..actor.delegation import Delegation
from ..actor.kept import Kept
from ..actor.reply_stream import ReplyStream
from ..actor.stream_group import OnItems, StreamGroup
from ..dataplane.async_calls import AsyncCalls
from ..dataplane.custody import Custody
from ..dataplane.endpoint import Endpoint
from ..dataplane.pending import deadline_of
from ..dataplane.stream_group import ReadGroup
from ..errors import SlabwireError
from .input_states import FINISHED
from .outlets import Outlets
from .own_tasks import OwnTasks
from .reply_streams import ReplyStreams
from .work import Work, current


class CellBinding:
    """Set as `actor._binding`. Used by the worker's thread, inside handlers, hooks and tasks of theirs. `reply_streams`
    is the cell's, which comes after its binding.

    `graph` is the name that the graph runs under; "" where no supervisor could be asked by it. `retires`: this worker
    is being replaced, and the graph goes on.
    """

    reply_streams: ReplyStreams

    def __init__(
        self,
        instance: str,
        cores: tuple[int, ...],
        threads: int,
        endpoint: Endpoint,
        outlets: Outlets,
        calls: AsyncCalls,
        custody: Custody,
        own: OwnTasks,
        outputs: Iterable[str],
        graph: str = "",
    ) -> None:
        self.outputs = frozenset(outputs)
        self.graph = graph
        self.retires = False
        self._instance = instance
        self.cores = cores  # changes when the worker is moved
        self._threads = threads
        self._endpoint = endpoint
        self._outlets = outlets
        self._calls = calls
        self._custody = custody
        self._own = own

    def loan(self, shape: Shape, dtype: DTypeLike) -> NDArray[Any]:
        loan = self._endpoint.pool.loan((shape,) if isinstance(shape, int) else tuple(shape), dtype)
        if self._endpoint.pool.ledger is not None:
            self._sign(loan)
        return loan

    def loan_many(self, tensors: tuple[tuple[Shape, DTypeLike], ...]) -> list[NDArray[Any]]:
        loans = self._endpoint.pool.loan_many(
            [((shape,) if isinstance(shape, int) else tuple(shape), dtype) for shape, dtype in tensors]
        )
        if self._endpoint.pool.ledger is not None and loans:
            self._sign(loans[0])
        return loans

    def _sign(self, loan: NDArray[Any]) -> None:
        """Debug mode: says whose loan it is."""
        block, ledger = loaned_block(loan), self._endpoint.pool.ledger
        if block is not None and ledger is not None:
            ledger.sign(block, self._instance)

    def emit(self, port: str, value: Any) -> None:
        work = current.get()
        self._outlets.send(self._own_account("emit") if work is None or work.state is FINISHED else work, port, value)

    async def send(self, port: str, value: Any) -> None:
        work = current.get()
        work = self._own_account("send") if work is None or work.state is FINISHED else work
        await self._outlets.sends.send(work, port, value)

    def _own_account(self, verb: str) -> Work:
        """The actor's own account, for what no input has caused. Raises SlabwireError in another thread."""
        self._own.check_thread(self._instance, verb)
        return self._outlets.own_account

    def _note_call(self, verb: str) -> None:
        work = current.get()
        if work is None or work.state is FINISHED:
            self._own_account(verb)
            self._outlets.sends.note_begun()

    async def call(self, target: str, args: tuple[Any, ...], fields: dict[str, Any], timeout_s: float | None) -> Any:
        self._note_call("call")
        return await self._calls.call(target, args, fields, self._deadline(timeout_s), self._trace())

    async def ask_aside(self, target: str, timeout_s: float | None) -> Any:
        """The answer of a port that needs no fields, whatever all places for calls and streams are taken by."""
        return await self._calls.aside(target, self._deadline(timeout_s))

    @property
    def replicas(self) -> int:
        """How many replicas the actor has, this one among them."""
        routing = self._outlets.routing
        return len(routing.instances[routing.actor_of[self._instance]])

    def places_at(self, actor: str) -> int:
        """How many inputs an actor takes at a time, all of its replicas together; 0 where there is no such actor."""
        actors = self._outlets.routing.spec.actors
        return sum(each.concurrency * each.replicas for each in actors if each.name == actor)

    def reply_stream(self) -> ReplyStream[Any]:
        work = current.get()
        if work is None:
            raise SlabwireError("self.reply_stream() is for a handler, while it runs")
        return self.reply_streams.open(work)

    def publish(self, items: Iterable[tuple[ReplyStream[Any], Any]], ended: Iterable[ReplyStream[Any]]) -> None:
        self._own.check_thread(self._instance, "publish")
        self.reply_streams.publish(items, ended)

    def streams(self, on_items: OnItems | None) -> StreamGroup:
        self._own.check_thread(self._instance, "streams")
        return ReadGroup(self._calls, self._own.loop, on_items, self._deadline, self._trace)

    def stream(
        self, target: str, args: tuple[Any, ...], fields: dict[str, Any], timeout_s: float | None
    ) -> AsyncGenerator[Any, None]:
        self._note_call("stream")
        return self._calls.stream(target, args, fields, self._deadline(timeout_s), self._trace())

    def delegate(
        self,
        target: str,
        args: tuple[Any, ...],
        fields: dict[str, Any],
        report: str | None,
        about: Any,
        report_nbytes: int,
    ) -> Delegation:
        delegations = self._outlets.delegations
        to = delegations.report_to(self._instance, report, about, report_nbytes) if report is not None else None
        return delegations.made(target, args, fields, to)

    def keep(self, name: str, layout: Layout, parameters: Mapping[str, int]) -> Kept:
        self._own.check_thread(self._instance, "keep")
        return self._custody.keep(self._instance, name, layout, parameters)

    def listen(self, address: str, replica: int | None) -> socket.socket:
        self._own.check_thread(self._instance, "listen")
        return self._custody.listen(self._instance, address, replica)

    @property
    def context(self) -> Context:
        work = current.get()
        if work is None or work.state is FINISHED:  # a task that outlives its handler acts on the actor's own account
            work = self._outlets.own_account
        header = work.header
        deadline_s = header.deadline_ns / 1e9 if header.deadline_ns else None
        about = header.request, work.attempt, header.trace, self._instance, self.cores
        key = work.key or None
        sent, threads = work.ordinal, self._threads
        return Context(*about, deadline_s=deadline_s, sent=sent, threads=threads, idempotency_key=key)

    def _deadline(self, timeout_s: float | None) -> int:
        """A call made for a request must end with it."""
        work = current.get()
        limits = [deadline_of(timeout_s), work.header.deadline_ns if work is not None else 0]
        return min((each for each in limits if each), default=0)

    def _trace(self) -> tuple[int, int]:
        work = current.get()
        return (work.header.trace_high, work.header.trace_low) if work is not None else (0, 0)


def binding_of(actor: Actor) -> CellBinding | None:
    """What a worker has lent to an actor; None outside of one."""
    binding = actor._binding
    return binding if isinstance(binding, CellBinding) else None
