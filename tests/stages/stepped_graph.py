"""A graph whose workers and client are all in this process, each goes on when it is told to, and each may die.

The parts are real: a switchboard, workers, connections, lanes. Missing are processes: to die is to be abandoned.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, cast

from points import POINTS
from slabwire import Actor, Graph
from slabwire.runtime.actor.user_code import made
from slabwire.runtime.clients import in_process_graphs
from slabwire.runtime.clients.local import LocalConnection
from slabwire.runtime.control.channel import Assignment
from slabwire.runtime.dataplane.async_calls import AsyncCalls
from slabwire.runtime.dataplane.caller import Caller
from slabwire.runtime.dataplane.descriptor_channel import Channel, Link, Listener, Unheard
from slabwire.runtime.dataplane.requests import Requests
from slabwire.runtime.dataplane.stream_group import ReadGroup
from slabwire.runtime.dataplane.switchboard import Switchboard
from slabwire.runtime.errors import SlabwireError
from slabwire.runtime.graph.compiled import Routing
from slabwire.runtime.launch.in_process_engine import _OwnLink
from slabwire.runtime.placement.plan import Plan, WorkerPlan
from slabwire.runtime.spec import ActorSpec
from slabwire.runtime.worker.supervisor_line import OwnLine
from slabwire.runtime.worker.worker import Worker
from slabwire.shm.consumer import Consumer
from slabwire.shm.inflight import Inflight
from slabwire.shm.open_calls import OpenCalls
from slabwire.shm.pool import Pool
from slabwire.shm.producer import Producer

MOST_TURNS = 1000
# What a process does to memory that others see. The dead do none of it, though an exception unwinds their stack.
_DEEDS: tuple[tuple[type, tuple[str, ...]], ...] = (
    (Pool, ("take",)),
    (Producer, ("publish", "lend", "lend_again", "take_back")),
    (Consumer, ("commit", "note_read")),
    (Inflight, ("begin_running", "keep", "restart", "sent", "sent_all", "take", "clear")),
    (OpenCalls, ("begin", "end")),
)


class Death(BaseException):
    """The process ends here."""


class SteppedGraph:
    """Each actor has a worker of its own name. Clients find the graph by its name, as one that runs in this process."""

    is_driven = True

    def __init__(self, graph: Graph) -> None:
        spec = graph._validated(travels=False)
        self.name = spec.name
        self.routing = Routing(spec)
        self._codes = {name: (draft.code, draft.arguments) for name, draft in graph._drafts.items()}
        plans = tuple(WorkerPlan(each.name, (each.name,), (0,), 1, spin=False, reason="") for each in spec.actors)
        self.board = Switchboard(self.routing, Plan(self.name, "this process", plans))
        self._requests = Requests(self.board)
        self._lines = {each.name: OwnLine(lambda _: None) for each in plans}
        self.workers: dict[str, Worker] = {}
        self._dead: list[Worker] = []
        in_process_graphs.enter(self)
        for each in plans:
            self._start(each.name)

    def actor(self, name: str) -> Any:
        """The instance that lives now."""
        return self.workers[name].cells[name].actor

    def _start(self, name: str) -> None:
        peer = self.board.home_of(name)
        near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        peer.channel = Channel(far)
        link = _OwnLink(Channel(near), Unheard(), self.serve)
        assignment = Assignment(peer.number, [name], [0], 1, spin=False)
        worker = self.workers[name] = Worker(
            name, link, self._lines[name], self.routing.spec, assignment, self._made
        )
        worker.build()
        worker.start_actors()

    def _made(self, spec: ActorSpec) -> Actor:
        return made(spec.name, *self._codes[spec.name])

    # -- steps -------------------------------------------------------------------------------------------------------

    def work(self, name: str) -> None:
        """Lets a worker do what it can."""
        self.serve()
        worker = self.workers[name]
        worker.obey()
        for _ in range(MOST_TURNS):
            if not worker.turn(0.0):
                return
        raise AssertionError(f"{name} finds no rest")

    def die(self, name: str) -> None:
        """Ends a worker and starts its successor, as a supervisor does."""
        dead = self.workers.pop(name)
        for cell in dead.cells.values():
            for work in cell._runs.works.values():
                if work.lease is not None:
                    work.lease.abandon()
        self._dead.append(dead)  # nothing of it is collected while others go on
        _give_up_descriptors(dead)
        peer = self.board.home_of(name)
        peer.hang_up()
        self.board.departures.caller_died(peer)
        self._start(name)

    def serve(self) -> None:
        """Answers what was asked of the switchboard, and notices who has gone."""
        for peer in list(self.board.peers.values()):
            if peer.channel is not None and not self._requests.serve(peer, peer.channel):
                peer.hang_up()
                self.board.departures.client_left(peer)

    def close(self) -> None:
        in_process_graphs.leave(self)
        for worker in self.workers.values():
            worker.unwind()
            worker.finish(worker.loop.shutdown_default_executor())
            _give_up_descriptors(worker)
        self.workers.clear()
        self._dead.clear()
        self.board.departures.close()
        self.board.close()
        for line in self._lines.values():
            line.close()

    # -- as its clients see it ---------------------------------------------------------------------------------------

    def link(self, listener: Listener) -> Link:
        near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.board.add_client(Channel(far))
        return _OwnLink(Channel(near), listener, self.serve)

    def part(self) -> None:
        self.serve()
        self.board.departures.see_off()

    def explain(self, key: tuple[int, int], error: SlabwireError) -> None: ...

    def refuse_own_thread(self) -> None: ...

    def wait(self, is_over: Callable[[], Any], longest_s: float | None, bell: int) -> None: ...


def _give_up_descriptors(worker: Worker) -> None:
    """What the kernel does for a process that ends."""
    worker.loop.close()
    worker.link.close()
    worker.endpoint.close()


@contextmanager
def dying(point: str, passes: int) -> Iterator[None]:
    """Whoever acts within it dies at the n-th pass of a point: of `POINTS`, or amid `Inflight.sent_all`."""
    left, is_dead = passes, False

    def passing() -> None:
        nonlocal left, is_dead
        left -= 1
        if left == 0:
            is_dead = True
            raise Death

    def deed(owner: type, name: str) -> Callable[..., Any]:
        whole: Callable[..., Any] = getattr(owner, name)
        marks, when = POINTS.get(point, (((Inflight, "sent_all"),), "amid"))
        is_marked = (owner, name) in marks

        def done(it: Any, *arguments: Any, **named: Any) -> Any:
            if is_dead:
                raise Death
            if is_marked and when == "before":
                passing()
            if is_marked and when == "amid":
                for each in arguments[0]:
                    whole(it, [each])
                    passing()
                return None
            result = whole(it, *arguments, **named)
            if is_marked and when == "after":
                passing()
            return result

        return done

    def release(it: Consumer, row: int, generation: int) -> None:
        if not is_dead:  # it may be called by a `__del__`, which raises nothing
            released(it, row, generation)

    released = Consumer.release
    deeds = [(owner, name) for owner, names in _DEEDS for name in names]
    whole = [(owner, name, getattr(owner, name)) for owner, name in [*deeds, (Consumer, "release")]]
    for owner, name in deeds:
        setattr(owner, name, deed(owner, name))
    setattr(Consumer, "release", release)
    try:
        with suppress(Death):
            yield
    finally:
        for owner, name, method in whole:
            setattr(owner, name, method)


class ReadingWorker:
    """The calls of a worker, which reads streams as a group. When it dies it has a successor, with the same lanes."""

    def __init__(self, graph: SteppedGraph, name: str) -> None:
        self._graph, self._name = graph, name
        self.group = self._new_group()

    def _new_group(self) -> ReadGroup:
        worker = self._graph.workers[self._name]
        self.caller = worker.caller
        return ReadGroup(worker._calls, worker.loop)

    def look(self) -> None:
        self._graph.work(self._name)

    def die(self) -> None:
        self._graph.die(self._name)
        self.group = self._new_group()

    def close(self) -> None: ...


class ReadingClient:
    """A client, which reads streams as a group. When it dies its lanes go, and another client comes."""

    def __init__(self, graph: SteppedGraph, calls: int) -> None:
        self._graph, self._calls = graph, calls
        self.caller: Caller
        self._begin()

    def _begin(self) -> None:
        self._connection = LocalConnection(self._graph.name, may_spin=False, drives=True, calls=self._calls)
        self.caller = self._connection.caller
        # Its streams have neither deadlines nor a callback: nothing is asked of a loop.
        loop = cast(asyncio.AbstractEventLoop, None)
        self.group = ReadGroup(AsyncCalls(self.caller, self._calls), loop)

    def look(self) -> None:
        self._connection.take_in()

    def die(self) -> None:
        self.close()
        self._graph.serve()
        self._begin()

    def close(self) -> None:
        """Without a word to anybody."""
        self.caller._pending.clear()
        self._connection.close()
