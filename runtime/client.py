"""The client SDK for ordinary code: `slabwire.connect(...)`, `call`, `stream`."""

from __future__ import annotations

import os
import select
import threading
from collections import deque
from collections.abc import Generator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from ..shm.bell import now_ns
from .caller import Pending, deadline_of, result_of
from .calls import message_for, timed_out
from .errors import Disconnected
from .local import LocalConnection
from .message import Kind

if TYPE_CHECKING:
    from .remote import RemoteClient

# A call without a timeout of its own waits this long.
CALL_TIMEOUT_S = 60.0
# A thread that waits while another one receives looks up this often, should the other have died.
_FOLLOW_S = 0.05
# poll(2) takes milliseconds in 31 bits.
_LONGEST_POLL_S = 86_400.0


class Client:
    """Talks to a running graph on this host through shared memory. Threads may share it; each call blocks its own.

    One of the waiting threads receives for all. Close it, or use it in a `with`.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._connection = LocalConnection(name, may_spin=len(os.sched_getaffinity(0)) > 1)
        self._lock = threading.Lock()  # guards the connection
        self._given_up: deque[Pending] = deque()
        self._receiving = threading.Lock()  # held by the one thread that receives
        self._news = threading.Condition()
        self._followers = 0
        self._poll = select.poll()
        self._poll.register(self._connection.bell.fd, select.POLLIN)
        self._poll.register(self._connection.link.channel.fileno(), select.POLLIN)
        self._closed = False

    @property
    def ports(self) -> list[str]:
        """The exposed ports, as `actor.port`."""
        spec = self._connection.routing.spec
        return [str(route.entry) for route in spec.routes[: spec.exposed]]

    def call(self, target: str, /, *args: Any, timeout_s: float | None = CALL_TIMEOUT_S, **fields: Any) -> Any:
        """The answer of port `target` (`"actor.port"`); values by position or by field name. None waits for ever.

        Arrays that come back are read-only views of shared memory, given back when the last of them dies. Raises
        DeadlineExceeded, UnknownPort, MessageError, Overloaded, Disconnected, or what the handler raised.
        """
        deadline_ns = deadline_of(timeout_s)
        pending = self._begin(target, self._message(target, args, fields, stream=False), deadline_ns)
        try:
            self._wait(pending, deadline_ns, target)
        except BaseException:
            self._cancel(pending)
            raise
        return result_of(*pending.take())

    def stream(
        self, target: str, /, *args: Any, timeout_s: float | None = None, **fields: Any
    ) -> Generator[Any, None, None]:
        """The items of a stream, as they come; leaving the loop cancels the rest. `timeout_s` is for all of it."""
        message = self._message(target, args, fields, stream=True)
        return self._items(target, message, deadline_of(timeout_s))

    def _items(self, target: str, message: dict[str, Any], deadline_ns: int) -> Generator[Any, None, None]:
        # The work begins with the first `next`: an iterator that nobody starts is never told that it ends.
        pending = self._begin(target, message, deadline_ns)
        try:
            while True:
                self._wait(pending, deadline_ns, target)
                kind = pending.next_kind()
                if kind == Kind.END:
                    return
                yield result_of(*pending.take())  # no name here keeps the item, or the error
                if kind == Kind.REPLY:
                    return
        finally:
            self._cancel(pending)

    def _message(self, target: str, args: tuple[Any, ...], fields: dict[str, Any], *, stream: bool) -> dict[str, Any]:
        if self._closed:
            raise Disconnected(f"this client of graph {self.name!r} is closed")
        return message_for(self._connection.routing, target, args, fields, inside=False, stream=stream)

    def _begin(self, target: str, message: dict[str, Any], deadline_ns: int) -> Pending:
        with self._lock:
            self._tell_given_up()
            caller = self._connection.caller
            return caller.begin(target, message, deadline_ns=deadline_ns, notify=self._tell_followers)

    def _cancel(self, pending: Pending) -> None:
        """May run inside any other function, where the garbage collector ends an iterator: then whoever holds the lock
        does it later.
        """
        self._given_up.append(pending)
        if self._lock.acquire(blocking=False):
            try:
                self._tell_given_up()
            finally:
                self._lock.release()

    def _tell_given_up(self) -> None:
        while self._given_up and not self._closed:
            self._connection.caller.cancel(self._given_up.popleft())

    def _wait(self, pending: Pending, deadline_ns: int, target: str) -> None:
        """Returns when something has arrived for `pending`: this thread receives, unless another one does already."""
        while not pending.arrived:
            if self._receiving.acquire(blocking=False):
                try:
                    self._receive(pending, deadline_ns)
                finally:
                    self._receiving.release()
                    self._tell_followers()
            else:
                self._follow(pending, deadline_ns)
            if not pending.arrived and deadline_ns and now_ns() > deadline_ns:
                if self._receiving.acquire(blocking=False):  # so that what nobody waited for does not pile up
                    try:
                        with self._lock:
                            self._connection.caller.pump()
                    finally:
                        self._receiving.release()
                if not pending.arrived:
                    raise timed_out(target)

    def _follow(self, pending: Pending, deadline_ns: int) -> None:
        left_s = (deadline_ns - now_ns()) / 1e9 if deadline_ns else _FOLLOW_S
        with self._news:
            self._followers += 1
            if not pending.arrived:
                self._news.wait(max(0.0, min(_FOLLOW_S, left_s)))
            self._followers -= 1

    def _tell_followers(self) -> None:
        if self._followers:
            with self._news:
                self._news.notify_all()

    def _receive(self, pending: Pending, deadline_ns: int) -> None:
        """Receives for all threads: looks for a while if that has paid lately, then parks."""
        caller, wait, arrived = self._connection.caller, self._connection.wait, pending.arrived
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
        connection = self._connection
        with self._lock:
            look_at = 0 if self._closed else connection.endpoint.trim(now_ns())
        until_ns = min(filter(None, (deadline_ns, look_at)), default=0)
        left_s = max(0.0, (until_ns - now_ns()) / 1e9) if until_ns else None
        connection.wait.park(connection.endpoint.reasons(), self._has_news, self._sleep, left_s)
        with self._lock:
            if not self._closed:
                connection.take_in()

    def _has_news(self) -> bool:
        """The last look after saying that it sleeps."""
        with self._lock:
            self._connection.endpoint.collect_forwards()
        return self._connection.caller.has_news() or self._closed

    def _sleep(self, longest_s: float | None) -> None:
        self._poll.poll(None if longest_s is None else min(longest_s, _LONGEST_POLL_S) * 1000)

    def close(self) -> None:
        """Ends the connection: calls in flight are cancelled. Arrays that were received stay valid."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._connection.caller.fail_all(Disconnected("the client was closed"))
        self._connection.endpoint.ringers[self._connection.endpoint.identifier].ring_always()
        with self._receiving:
            self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def connect(where: str, *, keys: Path | str | None = None) -> Client | RemoteClient:
    """A client of the graph that runs under that name on this host, or at `ipc://...` or `tcp://host:port`.

    `keys` is a folder with `client.key_secret` and `server.key`, needed for other hosts. Raises Disconnected if nothing
    answers there.
    """
    if "://" in where:
        from .remote import RemoteClient

        return RemoteClient(where, keys)
    return Client(where)
