"""One connection to a graph on this host that threads share: one of those that wait receives for all."""

from __future__ import annotations

import contextlib
import os
import select
import threading
from collections import deque
from typing import Any, NoReturn

from ...shm.bell import now_ns
from ..dataplane.async_calls import timed_out
from ..dataplane.caller import Pending
from ..errors import ClientClosed, Disconnected, SlabwireError, untouched
from ..host.attempt import attempt
from ..host.forks import forked_error, part_in_children
from ..message.header import Kind
from .local import LocalConnection

# A thread that waits while another one receives looks up this often, should the other have died.
_FOLLOW_S = 0.05
# poll(2) takes milliseconds in 31 bits.
_LONGEST_POLL_S = 86_400.0
# Between calls nobody listens. A look costs a system call, so that not each of many calls can afford one.
_LOOK_EVERY_NS = 1_000_000
_TORN = "an interrupt has torn this client's connection; call again"


class SharedConnection:
    """Lasts as long as the graph does: then `is_gone`, and its calls have failed. Raises Disconnected if none runs."""

    def __init__(self, name: str, answer_within_s: float) -> None:
        self.local = LocalConnection(
            name, may_spin=len(os.sched_getaffinity(0)) > 1, answer_within_s=answer_within_s, drives=True
        )
        self.is_gone = False
        self._name = name
        self._lock = threading.Lock()  # guards the connection
        self._given_up: deque[Pending] = deque()
        self._receiving = threading.Lock()  # held by the one thread that receives
        self._news = threading.Condition()
        self._followers = 0
        self._poll = select.poll()
        self._poll.register(self.local.bell.fd, select.POLLIN)
        self._poll.register(self.local.link.channel.fileno(), select.POLLIN)
        self._end = select.poll()
        self._end.register(self.local.link.channel.fileno(), select.POLLIN)
        self._looked_ns = now_ns()
        self._closed = False
        part_in_children(self)

    def part(self) -> None:
        """In a forked child: neither the memory is there, nor the threads that hold locks."""

        def refuse(*_: Any) -> NoReturn:
            raise forked_error(f"graph {self._name!r}", f"slabwire.connect({self._name!r})")

        vars(self).update(dict.fromkeys(("is_there", "begin", "wait"), refuse))
        vars(self).update(dict.fromkeys(("cancel", "close"), lambda *_: None))

    def is_there(self) -> bool:
        """Whether the graph has not ended, as far as is known, and no interrupt has torn the connection: also between
        calls, when nobody listens.
        """
        if self.local.link.is_torn and not self.is_gone:
            self._give_up()
        now = now_ns()
        if not self.is_gone and now - self._looked_ns > _LOOK_EVERY_NS:
            self._looked_ns = now
            got: list[bool] = []
            try:
                got += attempt(self._receiving)
                if got[0] and self._end.poll(0):  # whoever else has it listens, and would know
                    self._take_in()
            finally:
                if True in got:
                    self._receiving.release()
        return not self.is_gone

    def _give_up(self) -> None:
        """Ends a torn connection; whoever calls next connects anew."""
        with self._lock:
            if self.local.link.is_torn and not self.is_gone:  # nobody hears news without the lock
                self.is_gone = True
                self.local.caller.fail_all(Disconnected(_TORN))

    def begin(self, target: str, message: dict[str, Any], deadline_ns: int, key: str = "") -> Pending:
        """Sends a request. Raises what `Caller.begin` does."""
        if self.local.here is not None:
            self.local.here.refuse_own_thread()
        with self._lock:
            if self._closed or self.is_gone:
                raise untouched(Disconnected(f"graph {self._name!r} has ended"))
            if self.local.link.is_torn:
                raise untouched(Disconnected(_TORN))
            self._tell_given_up()
            caller = self.local.caller
            return caller.begin(target, message, deadline_ns=deadline_ns, notify=self._tell_followers, key=key)

    def cancel(self, pending: Pending) -> None:
        """May run inside any other function, where the garbage collector ends an iterator: then whoever holds the lock
        does it later.
        """
        self._given_up.append(pending)
        got: list[bool] = []
        try:
            got += attempt(self._lock)
            if got[0]:
                self._tell_given_up()
        finally:
            if True in got:
                self._lock.release()

    def fail(self, pending: Pending, error: SlabwireError) -> None:
        """Cancels a call whose own thread this is; what it hears from then on is the error."""
        self.cancel(pending)
        pending.arrived.clear()
        pending.arrived.append((Kind.ERROR, error))

    def _tell_given_up(self) -> None:
        while self._given_up and not self._closed:
            self.local.caller.cancel(self._given_up.popleft())

    def wait(self, pending: Pending, deadline_ns: int, target: str) -> None:
        """Returns when something has arrived for `pending`: this thread receives, unless another one does already."""
        while not pending.arrived:
            got: list[bool] = []
            try:
                got += attempt(self._receiving)
                if got[0]:
                    self._receive(pending, deadline_ns)
                else:
                    self._follow(pending, deadline_ns)
            finally:
                if True in got:
                    self._receiving.release()
                    self._tell_followers()
            if not pending.arrived and deadline_ns and now_ns() > deadline_ns:
                self._look()  # so that what nobody waited for does not pile up
                if not pending.arrived:
                    raise timed_out(target)

    def _look(self) -> None:
        """Takes in the answers that have come, unless another thread receives."""
        got: list[bool] = []
        try:
            got += attempt(self._receiving)
            if got[0]:
                with self._lock:
                    self.local.caller.pump()
        finally:
            if True in got:
                self._receiving.release()

    def _follow(self, pending: Pending, deadline_ns: int) -> None:
        left_s = (deadline_ns - now_ns()) / 1e9 if deadline_ns else _FOLLOW_S
        with self._news:
            self._followers += 1
            try:
                if not pending.arrived:
                    self._news.wait(max(0.0, min(_FOLLOW_S, left_s)))
            finally:
                self._followers -= 1

    def _tell_followers(self) -> None:
        if self._followers:
            with self._news:
                self._news.notify_all()

    def _receive(self, pending: Pending, deadline_ns: int) -> None:
        """Receives for all threads: looks for a while if that has paid lately, then parks."""
        caller, wait, arrived = self.local.caller, self.local.wait, pending.arrived
        while not (arrived or self._closed):
            if caller.has_news() or wait.spin(caller.has_news, deadline_ns):
                with self._lock:
                    self._tell_given_up()
                    caller.pump()
            elif deadline_ns and now_ns() > deadline_ns:
                return
            else:
                self._park(deadline_ns)

    def _park(self, deadline_ns: int) -> None:
        local = self.local
        with self._lock:
            look_at = 0 if self._closed else local.endpoint.trim(now_ns())
        until_ns = min(filter(None, (deadline_ns, look_at)), default=0)
        left_s = max(0.0, (until_ns - now_ns()) / 1e9) if until_ns else None
        local.wait.park(local.endpoint.reasons(), self._has_news, self._sleep, left_s)
        self._take_in()

    def _take_in(self) -> None:
        """By the one thread that receives. When the graph has ended all calls have the error."""
        with self._lock:
            if self._closed or self.is_gone or self.local.link.is_torn:
                return
            try:
                self.local.take_in()
            except Disconnected:
                self.is_gone = True

    def _has_news(self) -> bool:
        """The last look after saying that it sleeps."""
        with self._lock:
            self.local.endpoint.collect_forwards()
        return self.local.caller.has_news() or self._closed

    def _sleep(self, longest_s: float | None) -> None:
        if self.local.here is not None and self.local.here.is_driven:
            # It may end meanwhile. Then its channel does, and answers that have come by then are heard before that.
            with contextlib.suppress(Disconnected):
                self.local.here.wait(self._is_ended, longest_s, self.local.bell.fd)
            return
        self._poll.poll(None if longest_s is None else min(longest_s, _LONGEST_POLL_S) * 1000)

    def _is_ended(self) -> bool:
        return bool(self._end.poll(0))

    def close(self) -> None:
        """Ends the connection: calls in flight are cancelled. Arrays that were received stay valid."""
        with self._lock:
            if self._closed:
                return
            self.local.caller.pump()  # an answer that has come is no call in flight
            self._closed = True
            self.local.caller.fail_all(ClientClosed("the client was closed"))
        self.local.endpoint.ringers[self.local.endpoint.identifier].ring_always()
        with self._receiving:
            self.local.close()
