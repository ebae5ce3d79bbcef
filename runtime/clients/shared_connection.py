"""A connection to a graph on this host that threads share: one of the waiting threads receives for all."""

from __future__ import annotations

import contextlib
import os
import select
import threading
import time
from collections import deque
from functools import partial
from typing import Any, NoReturn

from ...shm.bell import now_ns
from ..dataplane.pending import Pending, timed_out
from ..errors import ClientClosed, Disconnected, HandlerError, Overloaded, mark_not_begun
from ..host.attempt import with_lock
from ..host.forks import forked_error, part_in_children
from ..message.header import Kind
from ..message.sent_stream import SentStream
from .connection import LOOK_AGAIN_S, Connection, closed_error, late_answer, seconds_for_an_answer
from .local import LocalConnection

# poll(2) takes milliseconds in 31 bits.
_LONGEST_POLL_S = 86_400.0
# Between calls nobody listens. A look costs a system call, so that not each of many calls can afford one.
_LOOK_EVERY_NS = 1_000_000
_TORN = "an interrupt has torn this client's connection; call again"


class SharedConnection(Connection):
    """A `Connection` that lasts as long as the graph does: then its calls have failed, and `renewed` gives a successor.

    Raises Disconnected where no such graph runs.
    """

    def __init__(self, name: str, deadline_ns: int = 0) -> None:
        super().__init__()
        self.local = LocalConnection(
            name,
            may_spin=len(os.sched_getaffinity(0)) > 1,
            answer_within_s=seconds_for_an_answer(deadline_ns),
            drives=True,
        )
        self._name = name
        self.whose = f"graph {name!r}"
        self.may_be_late = self.local.here is not None and self.local.here.is_driven
        self._is_gone = False
        self._is_called = False
        self._closed = False
        self._successor: SharedConnection | None = None
        self._renewing = threading.Lock()  # held by the one thread that connects anew
        self._lock = threading.Lock()  # guards the lanes
        self._given_up: deque[Pending] = deque()
        self._poll, self._end = select.poll(), select.poll()
        self._channel = self.local.link.channel.fileno()
        self._poll.register(self.local.bell.fd, select.POLLIN)
        for each in (self._poll, self._end):
            each.register(self._channel, select.POLLIN)
        self._looked_ns = now_ns()
        part_in_children(self)

    def part(self) -> None:
        """In a forked child: neither the memory is there, nor the threads that hold locks."""

        def refuse(*_: Any, **__: Any) -> NoReturn:
            raise forked_error(self.whose, f"slabwire.connect({self._name!r})")

        vars(self).update(dict.fromkeys(("is_there", "begin", "wait"), refuse))
        vars(self).update(dict.fromkeys(("cancel", "close"), lambda *_: None))

    @property
    def name(self) -> str:
        """Of the graph."""
        return self._name

    @property
    def ports(self) -> list[str]:
        """The exposed ports, as `actor.port`."""
        return self.local.ports

    def is_there(self) -> bool:
        """Whether the graph has not ended, as far as is known, and no interrupt has torn the connection: also between
        calls, when nobody listens.
        """
        if self.local.link.is_torn and not self._is_gone:
            self._give_up()
        now = now_ns()
        if now - self._looked_ns > _LOOK_EVERY_NS and not self._is_gone:
            self._looked_ns = now
            got: list[bool] = []
            try:
                got += self._try_to_receive()
                if got[0] and self._end.poll(0):  # a thread that has the lock listens, and would know
                    self._take_in()
            finally:
                if True in got:
                    self._receiving.release()
        return not (self._is_gone or self._closed)

    def renewed(self, deadline_ns: int) -> SharedConnection:
        """Its successor, which the first thread that asks has made. Raises Disconnected, or ClientClosed."""
        left_s = max(0.0, (deadline_ns - now_ns()) / 1e9) if deadline_ns else -1
        try:
            with_lock(self._renewing, lambda: self._renew(deadline_ns), left_s)
        except (Disconnected, Overloaded) as error:
            raise mark_not_begun(error) from None
        if self._successor is None:
            raise late_answer(self.whose)
        return self._successor

    def _renew(self, deadline_ns: int) -> None:
        if self._successor is None:
            if self._closed:
                raise closed_error(self.whose)
            self._successor = SharedConnection(self._name, deadline_ns)
            self._leave()

    def _give_up(self) -> None:
        """Ends a torn connection; the next call connects anew."""
        with self._lock:
            if self.local.link.is_torn and not self._is_gone:  # nobody hears news without the lock
                self._is_gone = True
                self.local.caller.fail_all(Disconnected(_TORN))
        self._tell_followers()

    def check(self, target: str, args: tuple[Any, ...], fields: dict[str, Any]) -> bool:
        """Says at once what is wrong with a call that is begun later; whether it sends a stream."""
        if self._closed:
            raise closed_error(self.whose)
        self.local.caller.checked(target, args, fields, stream=True)
        return self.local.caller.ports.sent_stream(target) is not None

    def begin(
        self, target: str, args: tuple[Any, ...], fields: dict[str, Any], deadline_ns: int, key: str, *, stream: bool
    ) -> Pending:
        """Sends a request. Raises what `Caller.checked` and `Caller.begin` do."""
        local = self.local
        request = local.caller.checked(target, args, fields, stream=stream)
        if local.here is not None:
            local.here.refuse_own_thread()
        with self._lock:
            if self._closed or self._is_gone:
                raise mark_not_begun(Disconnected(f"{self.whose} has ended"))
            if local.link.is_torn:
                raise mark_not_begun(Disconnected(_TORN))
            if self._given_up:
                self._tell_given_up()
            return local.caller.begin(request, deadline_ns=deadline_ns, key=key)

    def cancel(self, pending: Pending) -> None:
        """May run inside any other function, where the garbage collector ends an iterator: then the thread that has the
        lock cancels later.
        """
        self._given_up.append(pending)
        with_lock(self._lock, self._tell_given_up)

    def _tell_given_up(self) -> None:
        while self._given_up:
            pending = self._given_up.popleft()  # also where all has ended: it holds the memory of its lane
            if not self._closed:
                self.local.caller.cancel(pending)

    def _refuse_late(self, pending: Pending, target: str) -> None:
        """The time is over. A handler of a graph that this thread drives runs while the thread waits, so what has
        arrived may be late.
        """
        with_lock(self._receiving, self._pump)  # so that what nobody waited for does not pile up
        super()._refuse_late(pending, target)
        error = pending.arrived[0][1] if pending.next_kind() is Kind.ERROR else None
        if self.may_be_late and (error is None or isinstance(error, HandlerError)):
            raise timed_out(target) from error

    def _pump(self) -> None:
        """Takes in the answers that have come. By the one thread that receives."""
        with self._lock:
            self.local.caller.pump()

    def _receive(self, pending: Pending, deadline_ns: int) -> None:
        """Receives for all threads: looks for a while if that has paid lately, then parks."""
        caller, wait, arrived, stream = self.local.caller, self.local.wait, pending.arrived, pending.stream
        while not (arrived or self._closed):
            goes = stream is not None and stream.can_go()
            if caller.has_news() or (not goes and wait.spin(caller.look(), deadline_ns)):
                with self._lock:
                    if self._given_up:
                        self._tell_given_up()
                    caller.pump()
                if self._followers:
                    self._tell_followers()
            elif goes or (deadline_ns and now_ns() > deadline_ns):
                return
            else:
                self._park(deadline_ns)

    def _park(self, deadline_ns: int) -> None:
        local = self.local
        with self._lock:
            look_at = 0 if self._closed else local.endpoint.trim(now_ns())
        until_ns = min(deadline_ns, look_at) if deadline_ns and look_at else deadline_ns or look_at
        left_s = max(0.0, (until_ns - now_ns()) / 1e9) if until_ns else None
        self._is_called = False
        local.wait.park(local.caller.reasons(), self._has_news, self._sleep, left_s)
        if self._is_called:
            self._take_in()

    def _send_next(self, stream: SentStream) -> None:
        """Sends one item of a stream, if there is room; else the stream goes on when there is."""
        if stream.can_go():
            stream.pull()
            with self._lock:
                stream.push()
        if not stream.can_go():
            stream.wait()

    def _take_in(self) -> None:
        """By the one thread that receives. When the graph has ended all calls have the error."""
        with self._lock:
            if self._closed or self._is_gone or self.local.link.is_torn:
                return
            try:
                self.local.take_in()
            except Disconnected:
                self._is_gone = True
        self._tell_followers()

    def _has_news(self) -> bool:
        """The last look after saying that it sleeps."""
        with self._lock:
            admitted = self.local.caller.collect()
        if admitted:
            self._tell_followers()
        return admitted or self.local.caller.has_news() or self._closed

    def _sleep(self, longest_s: float | None) -> None:
        """Notes in `_is_called` whether the supervisor has sent something."""
        if self.may_be_late and self.local.here is not None:
            # It may end meanwhile. Then its channel does, and answers that have come by then are heard before that.
            with contextlib.suppress(Disconnected):
                self.local.here.wait(partial(self._end.poll, 0), longest_s, self.local.bell.fd)
            self._is_called = True
        else:
            ready = self._poll.poll(None if longest_s is None else min(longest_s, _LONGEST_POLL_S) * 1000)
            self._is_called = self._channel in dict(ready)

    def close(self) -> None:
        """Ends the connection: calls in flight are cancelled. Arrays that were received stay valid."""
        with self._renewing:
            successor = self._successor
            self._leave()
        if successor is not None:
            successor.close()

    def _leave(self) -> None:
        with self._lock:
            if self._closed:
                return
            self._tell_given_up()
            self.local.caller.pump()  # an answer that has come is no call in flight
            self._closed = True
            self.local.caller.fail_all(ClientClosed("the client was closed"))
        self._tell_followers()
        self.local.endpoint.ringers[self.local.endpoint.identifier].ring_always()
        with self._receiving:
            self.local.close()
        self._given_up.clear()  # by threads that found the lock taken


def awaited(name: str, until_ns: int) -> SharedConnection:
    """A connection to a graph that may not run yet. Raises Disconnected where it does not by then."""
    while True:
        try:
            return SharedConnection(name)
        except Disconnected:
            if now_ns() >= until_ns:
                raise
        time.sleep(LOOK_AGAIN_S)
