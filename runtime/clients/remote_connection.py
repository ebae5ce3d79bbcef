"""A connection to a gateway that threads share, over ZeroMQ: one of the waiting threads receives for all."""

from __future__ import annotations

import contextlib
import os
import select
import threading
from pathlib import Path
from typing import Any, NoReturn

from ...shm.bell import now_ns
from ..dataplane.pending import Pending
from ..errors import DeadlineExceeded, Disconnected, SlabwireError, mark_not_begun
from ..host.attempt import attempt
from ..host.forks import forked_error, part_in_children
from ..message.sent_stream import SentStream
from ..remote.dealer import Dealer
from .connection import Connection, closed_error

# A gateway greets in a millisecond; a network that lost a packet may need a few tries.
HELLO_WITHIN_S = 5.0


class RemoteConnection(Connection):
    """A `Connection` that goes on when the graph has gone and come back: ZeroMQ connects anew, and it says hello again.

    Raises Disconnected where nothing answers within `wait_s` (5).
    """

    def __init__(self, address: str, keys: Path | str | None, wait_s: float | None) -> None:
        super().__init__()
        self.whose = address
        self._keys = Path(keys) if keys is not None else None
        self._dealer = Dealer(address, self._keys)
        self._lock = threading.Lock()  # guards the socket and the session
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
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
            raise forked_error(self.whose, f"slabwire.connect({self.whose!r})")

        vars(self).update(_check_open=refuse, wait=refuse, _lock=threading.Lock(), _closed=True)

    @property
    def name(self) -> str:
        """Of the graph that answers."""
        return self._session.ports.graph

    @property
    def ports(self) -> list[str]:
        """The exposed ports, as `actor.port`."""
        return self._session.ports.names

    def is_there(self) -> bool:
        """Whether the gateway has welcomed this client: the graph may have gone, or come back, with nobody there."""
        self._check_open()
        self._pump()
        return self._session.is_ready

    def renewed(self, deadline_ns: int) -> RemoteConnection:
        """The same, once the gateway has welcomed it again."""
        self._await_welcome(deadline_ns, HELLO_WITHIN_S)
        return self

    def check(self, target: str, args: tuple[Any, ...], fields: dict[str, Any]) -> bool:
        """Says at once what is wrong with a call that is begun later; whether it sends a stream."""
        self._check_open()
        return self._session.pack(target, args, fields, stream=True).source is not None

    def begin(
        self, target: str, args: tuple[Any, ...], fields: dict[str, Any], deadline_ns: int, key: str, *, stream: bool
    ) -> Pending:
        """Sends a call. Raises UnknownPort, MessageError, or Disconnected."""
        call = self._session.pack(target, args, fields, stream=stream)
        with self._lock:
            timeout_s = max(0.0, (deadline_ns - now_ns()) / 1e9) if deadline_ns else None
            pending = self._session.begin(call, timeout_s, None, key=key)
        self._pump()
        return pending

    def cancel(self, pending: Pending) -> None:
        """Says that nobody waits for the rest. Any thread, also inside the garbage collector."""
        self._session.cancel(pending)
        self._pump()

    def _check_open(self) -> None:
        if self._closed:
            raise closed_error(self.whose)

    def _await_welcome(self, deadline_ns: int, within_s: float) -> None:
        until_ns = now_ns() + int(within_s * 1e9)
        until_ns = min(until_ns, deadline_ns) if deadline_ns else until_ns
        while not (session := self._session).is_ready:
            self._check_open()
            with self._lock:
                error = session.take_refusal()
            if error is not None:
                raise error
            try:
                self.wait(session.verdict, until_ns, self.whose)
            except DeadlineExceeded:
                raise nothing_answers(self.whose, within_s) from None

    def wait(self, pending: Pending, deadline_ns: int, target: str) -> None:
        """Returns when something has arrived for `pending`. Raises DeadlineExceeded."""
        if self._session.outbox:  # room for more items of a stream, say
            self._pump()
        super().wait(pending, deadline_ns, target)

    def _send_next(self, stream: SentStream) -> None:
        if stream.can_go():
            stream.pull()
            stream.push()
            self._pump()

    def _receive(self, pending: Pending, deadline_ns: int) -> None:
        stream = pending.stream
        while not (pending.arrived or self._closed or (deadline_ns and now_ns() > deadline_ns)):
            if not self._pump() and not pending.arrived:
                if stream is not None and stream.can_go():
                    return
                self._poll.poll(max(0.0, (deadline_ns - now_ns()) / 1e6) if deadline_ns else None)
                with contextlib.suppress(OSError):
                    os.eventfd_read(self._wake)

    def _pump(self) -> bool:
        """Sends and receives; True if anything came, for any thread.

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
            self._tell_followers()
            with contextlib.suppress(OSError):
                os.eventfd_write(self._wake, 1)  # what came may be for the thread that sleeps
        return came

    def _hear(self) -> bool:
        """Sends and receives, over another socket where an interrupt has torn a message on its way through this one."""
        if self._hearing:
            torn = self._dealer
            torn.session.turned_away(Disconnected("an interrupt has torn this client's connection; call again"))
            self._dealer = Dealer(self.whose, self._keys)
            self._dealer.session.ports = torn.session.ports
            self._listen()
            torn.close(at_once=True)
            os.eventfd_write(self._wake, 1)  # for a thread that waits for the old one
        self._hearing = True
        came = self._dealer.pump()
        self._hearing = False
        return came

    def close(self) -> None:
        """Ends the connection: calls in flight are cancelled. Arrays that were received stay valid."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._dealer.leave()
            self._dealer.close()
        self._tell_followers()
        os.eventfd_write(self._wake, 1)
        with self._receiving:  # no thread sleeps on the descriptors any more
            os.close(self._wake)
            self._wake = -1


def nothing_answers(address: str, within_s: float) -> SlabwireError:
    """The error of a hello that got no welcome."""
    return mark_not_begun(
        Disconnected(
            f"no graph answers at {address} (waited {within_s:g} s); does it run, and listen there (--listen)?"
        )
    )
