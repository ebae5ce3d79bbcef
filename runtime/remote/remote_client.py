"""The client SDK over ZeroMQ, for graphs on other hosts: the verbs of `Client`."""

from __future__ import annotations

import contextlib
import os
import select
import threading
from collections.abc import Callable, Generator
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn, Self

from ...shm.bell import now_ns
from ..clients.client import CALL_TIMEOUT_S, again
from ..clients.retry import Attempts, Retry, key_of, retry_of
from ..dataplane.async_calls import timed_out
from ..dataplane.caller import deadline_of
from ..errors import ClientClosed, Disconnected, SlabwireError, untouched
from ..host.attempt import attempt
from ..host.forks import forked_error, part_in_children
from .client_protocol import Pending, result_of
from .dealer import Dealer
from .protocol import Head, Kind, pack_head

# A gateway greets in a millisecond; a network that lost a packet may need a few tries.
HELLO_WITHIN_S = 5.0
# A thread that waits while another one receives looks up this often for its own deadline.
_FOLLOW_S = 0.05


class RemoteClient:
    """Talks to a running graph at `tcp://host:port` or `ipc://path`. Threads may share it; each call blocks its own.

    One of the waiting threads receives for all. When the graph goes away, calls in flight fail with Disconnected; later
    ones work again once it is back. `keys` is a folder that `slabwire keys add` has made, `retries` the default of
    the verbs. Raises Disconnected when nothing answers within `wait_s` (5).
    """

    def __init__(
        self,
        address: str,
        keys: Path | str | None = None,
        *,
        retries: int | Retry = 0,
        wait_s: float | None = None,
    ) -> None:
        self.address = address
        self._retry = retry_of(retries)
        self._keys = Path(keys) if keys is not None else None
        self._dealer = Dealer(address, self._keys)
        self._lock = threading.Lock()  # guards the socket and the session
        self._receiving = threading.Lock()  # held by the one thread that waits for the socket
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._followers: set[threading.Event] = set()
        self._closed = False
        self._hearing = False
        self._listen()
        part_in_children(self)
        try:
            self._await_welcome(0, HELLO_WITHIN_S if wait_s is None else wait_s)
        except BaseException:
            self.close()
            raise

    def _listen(self) -> None:
        """To a dealer that is new."""
        self._session = self._dealer.session
        self._poll = select.poll()
        for each in (*self._dealer.descriptors, self._wake):
            self._poll.register(each, select.POLLIN)

    def part(self) -> None:
        """In a forked child: ZeroMQ's threads are not there, nor those that hold locks."""

        def refuse(*_: Any) -> NoReturn:
            raise forked_error(self.address, f"slabwire.connect({self.address!r})")

        vars(self).update(_check_open=refuse, _wait=refuse, _left=self._dealer, _dealer=_Departed())
        self._lock, self._receiving = threading.Lock(), threading.Lock()

    @property
    def name(self) -> str:
        """Of the graph that answers."""
        return self._session.graph

    @property
    def ports(self) -> list[str]:
        """The exposed ports, as `actor.port`."""
        return self._session.ports.names if self._session.ports is not None else []

    def call(
        self,
        target: str,
        /,
        *args: Any,
        timeout_s: float | None = CALL_TIMEOUT_S,
        retries: int | Retry | None = None,
        idempotency_key: str | bool | None = None,
        **fields: Any,
    ) -> Any:
        """The answer of port `target` (`"actor.port"`); values by position or by field name. None waits for ever.

        It is made again as by `Client.call`. Arrays that come back are read-only. Raises DeadlineExceeded, UnknownPort,
        MessageError, Overloaded, Disconnected, or what the handler raised.
        """
        deadline_ns = deadline_of(timeout_s)
        key, retry = key_of(idempotency_key), retry_of(retries, self._retry)

        def pack() -> list[Any]:
            return self._session.pack(target, args, fields, stream=False)

        pending, _ = self._started(target, pack, deadline_ns, retry, key, stream=False)
        self._cancel(pending)
        return result_of(*pending.arrived.popleft())

    def stream(
        self,
        target: str,
        /,
        *args: Any,
        timeout_s: float | None = None,
        retries: int | Retry | None = None,
        idempotency_key: str | bool | None = None,
        **fields: Any,
    ) -> Generator[Any, None, None]:
        """The items of a stream, as they come; leaving the loop cancels the rest. `timeout_s` is for all of it.

        It may be begun again, as a call, until its first item has come.
        """
        deadline_ns = deadline_of(timeout_s)
        key, retry = key_of(idempotency_key), retry_of(retries, self._retry)
        self._check_open()
        # The work begins later, with the first `next`; the caller may change its arrays meanwhile.
        payload = [bytes(each) for each in self._session.pack(target, args, fields, stream=True)]
        return self._items(target, payload, deadline_ns, retry, key)

    def _items(
        self, target: str, payload: list[Any], deadline_ns: int, retry: Retry | None, key: str
    ) -> Generator[Any, None, None]:
        pending, came = self._started(target, lambda: payload, deadline_ns, retry, key, stream=True)
        try:
            while True:
                self._wait(pending, came, deadline_ns, target)
                kind, value = self._session.take(pending)
                self._pump()
                if kind == Kind.END:
                    return
                yield result_of(kind, value)
                if kind == Kind.REPLY:
                    return
        finally:
            self._cancel(pending)

    def _started(
        self,
        target: str,
        pack: Callable[[], list[Any]],
        deadline_ns: int,
        retry: Retry | None,
        key: str,
        *,
        stream: bool,
    ) -> tuple[Pending, threading.Event]:
        """A request of which something has come back, which is no error after which it is made again."""

        def start() -> tuple[Pending, threading.Event]:
            self._await_ready(deadline_ns)
            pending, came = self._begin(target, pack(), deadline_ns, key, stream=stream)
            try:
                self._wait(pending, came, deadline_ns, target)
                if pending.arrived[0][0] == Kind.ERROR:
                    result_of(*pending.arrived.popleft())
            except BaseException:
                self._cancel(pending)
                raise
            return pending, came

        return again(start, Attempts(retry, key, deadline_ns)) if retry is not None else start()

    def _await_ready(self, deadline_ns: int) -> None:
        self._check_open()
        self._pump()  # the graph may have gone, or come back, while nobody listened
        if not self._session.is_ready:
            self._await_welcome(deadline_ns, HELLO_WITHIN_S)

    def _begin(
        self, target: str, payload: list[Any], deadline_ns: int, key: str, *, stream: bool
    ) -> tuple[Pending, threading.Event]:
        came = threading.Event()
        with self._lock:
            timeout_s = max(0.0, (deadline_ns - now_ns()) / 1e9) if deadline_ns else None
            pending = self._session.begin(target, payload, timeout_s, came.set, stream=stream, key=key)
        self._pump()
        return pending, came

    def _cancel(self, pending: Pending) -> None:
        self._session.cancel(pending)
        self._pump()

    def _check_open(self) -> None:
        if self._closed:
            raise ClientClosed(f"this client of {self.address} is closed")

    def _await_welcome(self, deadline_ns: int, within_s: float) -> None:
        until = now_ns() + int(within_s * 1e9)
        until = min(until, deadline_ns) if deadline_ns else until
        session = self._session
        while not session.is_ready:
            self._check_open()
            error = self._take_refusal()
            if error is not None:
                raise untouched(error)
            if now_ns() >= until:
                raise nothing_answers(self.address, within_s)
            self._receive_for(lambda: session.is_ready or session.refused is not None, until, threading.Event())

    def _take_refusal(self) -> SlabwireError | None:
        """Why there will be no welcome, for one of the threads that wait for it."""
        with self._lock:
            error, self._session.refused = self._session.refused, None
            if error is not None:
                self._session.connected()  # asks once more, for whoever calls next
            return error

    def _wait(self, pending: Pending, came: threading.Event, deadline_ns: int, target: str) -> None:
        """Returns when something has arrived for `pending`."""
        while not pending.arrived:
            self._check_open()
            self._receive_for(lambda: bool(pending.arrived), deadline_ns, came)
            if not pending.arrived and deadline_ns and now_ns() > deadline_ns:
                raise timed_out(target)

    def _receive_for(self, done: Callable[[], bool], deadline_ns: int, came: threading.Event) -> None:
        """Receives for all threads until `done`, or waits for a while if another thread does."""
        got: list[bool] = []
        try:
            got += attempt(self._receiving)
            if got[0]:
                while not done() and not self._closed and not (deadline_ns and now_ns() > deadline_ns):
                    if not self._pump():
                        self._park(done, deadline_ns)
            else:
                self._follow(deadline_ns, came)
        finally:
            if True in got:
                self._receiving.release()
                for follower in list(self._followers)[:1]:
                    follower.set()  # it receives from now on

    def _follow(self, deadline_ns: int, came: threading.Event) -> None:
        try:
            self._followers.add(came)
            came.wait(_FOLLOW_S if not deadline_ns else max(0.0, min(_FOLLOW_S, (deadline_ns - now_ns()) / 1e9)))
        finally:
            self._followers.discard(came)
            came.clear()

    def _park(self, done: Callable[[], bool], deadline_ns: int) -> None:
        if done():
            return
        self._poll.poll(max(0.0, (deadline_ns - now_ns()) / 1e6) if deadline_ns else None)
        with contextlib.suppress(OSError):
            os.eventfd_read(self._wake)

    def _pump(self) -> bool:
        """Sends and receives; True if anything came, whoever it was for.

        May be called by the garbage collector inside itself: then the call that is under way does the work.
        """
        came, waiting = False, -1
        while len(self._session.outbox) != waiting:
            got: list[bool] = []
            try:
                got += attempt(self._lock)
                if not got[0]:
                    break
                came |= not self._closed and self._hear()
                waiting = len(self._session.outbox)  # what cannot leave now goes when the socket says so
            finally:
                if True in got:
                    self._lock.release()
        if came:
            with contextlib.suppress(OSError):
                os.eventfd_write(self._wake, 1)  # what came may be for the thread that sleeps
        return came

    def _hear(self) -> bool:
        """Sends and receives, over another socket where an interrupt has torn a message on its way through this one."""
        if self._hearing:
            torn = self._dealer
            torn.session.lost(Disconnected("an interrupt has torn this client's connection; call again"))
            self._dealer = Dealer(self.address, self._keys)
            self._dealer.session.ports = torn.session.ports
            self._listen()
            torn.close(at_once=True)
            os.eventfd_write(self._wake, 1)  # whoever waits for the old one
        self._hearing = True
        came = self._dealer.pump()
        self._hearing = False
        return came

    def close(self) -> None:
        """Ends the connection: calls in flight are cancelled. Arrays that were received stay valid."""
        with self._lock:
            if self._closed:
                return
            if self._session.is_ready:
                self._session.outbox.append([pack_head(Head(Kind.BYE)), b"\xc0"])
                self._dealer.pump()
            self._closed = True
            self._session.lost(ClientClosed("the client was closed"))
            self._dealer.close()
        os.eventfd_write(self._wake, 1)
        with self._receiving:  # whoever still sleeps on the descriptors has left
            os.close(self._wake)
            self._wake = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Departed:
    """In the place of a forked child's dealer."""

    def pump(self) -> bool:
        """Nothing comes."""
        return False

    def close(self) -> None:
        """The connection is the parent's."""


def nothing_answers(address: str, within_s: float) -> SlabwireError:
    """The error of a hello that got no welcome."""
    return untouched(
        Disconnected(
            f"no graph answers at {address} (waited {within_s:g} s); does it run, and listen there (--listen)?"
        )
    )
