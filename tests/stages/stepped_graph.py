"""A graph whose workers and client are all in this process, each goes on when it is told to, and each may die.

The parts are real: a switchboard, workers, connections, lanes. Missing are processes: to die is to be abandoned.
"""

from __future__ import annotations

import asyncio
import socket
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

from points import POINTS
from slabwire import Actor, Graph
from slabwire.runtime.actor.user_code import made
from slabwire.runtime.clients import in_process_graphs
from slabwire.runtime.clients.local import LocalConnection
from slabwire.runtime.control.channel import Assignment
from slabwire.runtime.dataplane.async_calls import AsyncCalls
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
    (Consumer, ("commit", "note_read", "release")),
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
            self.start(each.name)

    def actor(self, name: str) -> Any:
        """The instance that lives now."""
        return self.workers[name].cells[name].actor

    def start(self, name: str) -> None:
        """Starts a worker: the first of its name, or the successor of one that has died."""
        peer = self.board.home_of(name)
        near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        peer.channel = Channel(far)
        link = _OwnLink(Channel(near), Unheard(), self.serve)
        assignment = Assignment(peer.number, [name], [0], 1, spin=False)
        worker = self.workers[name] = Worker(name, link, self._lines[name], self.routing.spec, assignment, self._made)
        # The numbers of its requests grow with the time that a process takes to start, which this does not take.
        worker.caller._last_request += len(self._dead) << 32
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

    def end(self, name: str) -> None:
        """A worker has died: all hear of it."""
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
    mortal = _Mortal(point, passes)
    methods = [(owner, name, getattr(owner, name)) for owner, names in _DEEDS for name in names]
    for owner, name, method in methods:
        setattr(owner, name, mortal.deed(owner, name, method) if name != "release" else mortal.release(method))
    try:
        yield
    except Death as death:
        traceback.clear_frames(death.__traceback__)  # what they hold goes now, and says nothing
    finally:
        for owner, name, method in methods:
            setattr(owner, name, method)


class _Mortal:
    """A process until its death, and after it."""

    def __init__(self, point: str, passes: int) -> None:
        self.marks, self.when = POINTS.get(point, (((Inflight, "sent_all"),), "amid"))
        self.left = passes
        self.is_dead = False

    def passes(self) -> None:
        self.left -= 1
        self.is_dead |= self.left == 0
        self.go_on()

    def go_on(self) -> None:
        if self.is_dead:
            raise Death

    def deed(self, owner: type, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        """The method as the dead do not call it."""
        when = self.when if (owner, name) in self.marks else ""

        def done(it: Any, *arguments: Any, **named: Any) -> Any:
            self.go_on()
            if when == "before":
                self.passes()
            if when == "amid":
                for each in arguments[0]:
                    method(it, [each])
                    self.passes()
                return None
            result = method(it, *arguments, **named)
            if when == "after":
                self.passes()
            return result

        return done

    def release(self, method: Callable[[Consumer, int, int], None]) -> Callable[[Consumer, int, int], None]:
        """It may be called by a `__del__`, which raises nothing: who dies there does so at the next deed."""
        is_marked = (Consumer, "release") in self.marks

        def released(it: Consumer, row: int, generation: int) -> None:
            if not self.is_dead:
                method(it, row, generation)
                self.left -= is_marked
                self.is_dead |= is_marked and self.left == 0

        return released


class ReadingWorker:
    """The calls of a worker, which reads streams as a group. Its successor has the same lanes."""

    def __init__(self, graph: SteppedGraph, name: str) -> None:
        self._graph, self._name = graph, name
        self._begin()

    def _begin(self) -> None:
        worker = self._graph.workers[self._name]
        self.caller = worker.caller
        self.group = ReadGroup(worker._calls, worker.loop)

    def look(self) -> None:
        self._graph.work(self._name)

    def end(self) -> None:
        self._graph.end(self._name)

    def start(self) -> None:
        self._graph.start(self._name)
        self._begin()

    def close(self) -> None: ...


class ReadingClient:
    """A client, which reads streams as a group. Its lanes go with it, and the next one has others."""

    def __init__(self, graph: SteppedGraph, calls: int) -> None:
        self._graph, self._calls = graph, calls
        self.start()

    def start(self) -> None:
        self._connection = LocalConnection(self._graph.name, may_spin=False, drives=True, calls=self._calls)
        self.caller = self._connection.caller
        # Its streams have neither deadlines nor a callback: nothing is asked of a loop.
        loop = cast(asyncio.AbstractEventLoop, None)
        self.group = ReadGroup(AsyncCalls(self.caller, self._calls, loop), loop)

    def look(self) -> None:
        self._connection.take_in()

    def end(self) -> None:
        self.close()
        self._graph.serve()

    def close(self) -> None:
        """Without a word to anybody."""
        self.caller._pending.clear()
        self._connection.link.channel.close()
        self._connection.close()
