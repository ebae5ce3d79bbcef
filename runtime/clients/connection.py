"""What clients call over: shared memory on this host, or ZeroMQ to a gateway; for threads."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

from ...shm.bell import now_ns
from ..dataplane.pending import Pending, timed_out
from ..errors import ClientClosed, Disconnected, SlabwireError, StartError, mark_not_begun
from ..host.attempt import attempts_at_once
from ..message.sent_stream import SentStream
from .control import ANSWER_WITHIN_S

# A thread that waits while another one receives looks up this often, should the other have died.
_FOLLOW_S = 0.05
# A graph that does not run yet is looked for so often.
LOOK_AGAIN_S = 0.05


class Connection(ABC):
    """The connection of a `Client`. Threads share it: one of those that wait receives for all, the others follow it.

    Whatever takes in answers tells the followers. `whose` names the other end in errors.
    """

    whose: str
    may_be_late = False  # what arrives may be no answer any more

    def __init__(self) -> None:
        self._receiving = threading.Lock()  # held by the one thread that receives
        self._try_to_receive = attempts_at_once(self._receiving)
        self._news = threading.Condition()
        self._followers = 0

    @property
    @abstractmethod
    def name(self) -> str:
        """Of the graph."""

    @property
    @abstractmethod
    def ports(self) -> list[str]:
        """The exposed ports, as `actor.port`."""

    @abstractmethod
    def is_there(self) -> bool:
        """Whether a call may begin, as far as is known."""

    @abstractmethod
    def renewed(self, deadline_ns: int) -> Connection:
        """What to go on with where none may. Raises Disconnected where nothing answers, ClientClosed after `close`."""

    @abstractmethod
    def check(self, target: str, args: tuple[Any, ...], fields: dict[str, Any]) -> bool:
        """Says at once what is wrong with a call that is begun later; True if that sends a stream. Raises what `begin`
        does for any port, or ClientClosed.
        """

    @abstractmethod
    def begin(
        self, target: str, args: tuple[Any, ...], fields: dict[str, Any], deadline_ns: int, key: str, *, stream: bool
    ) -> Pending:
        """Checks a call and sends it. Raises UnknownPort, MessageError, OutOfMemory, Overloaded or Disconnected."""

    @abstractmethod
    def cancel(self, pending: Pending) -> None:
        """Says that nobody waits for the rest. Any thread, also inside the garbage collector."""

    @abstractmethod
    def close(self) -> None:
        """Ends it: calls in flight fail with ClientClosed. Arrays that were received stay valid."""

    def _send_next(self, stream: SentStream) -> None:
        """Sends one item of the stream that a call sends, if there is room."""
        raise NotImplementedError

    @abstractmethod
    def _receive(self, pending: Pending, deadline_ns: int) -> None:
        """Receives for all threads, until something has arrived for `pending`, its stream has room, or the time is
        over.
        """

    def _refuse_late(self, pending: Pending, target: str) -> None:
        """The time is over. Raises DeadlineExceeded where nothing has arrived."""
        if not pending.arrived:
            raise timed_out(target)

    def wait(self, pending: Pending, deadline_ns: int, target: str) -> None:
        """Returns when something has arrived for `pending`: this thread receives, unless another one does already.
        Meanwhile it sends the stream that the call sends, an item at a time.
        """
        while not pending.arrived:
            if pending.stream is not None:
                self._send_next(pending.stream)
            got: list[bool] = []
            try:
                got += self._try_to_receive()
                if got[0]:
                    self._receive(pending, deadline_ns)
                else:
                    self._follow(pending, deadline_ns)
            finally:
                if True in got:
                    self._receiving.release()
                    if self._followers:
                        self._tell_followers()
            if deadline_ns and (self.may_be_late or not pending.arrived) and now_ns() > deadline_ns:
                self._refuse_late(pending, target)

    def _follow(self, pending: Pending, deadline_ns: int) -> None:
        left_s = (deadline_ns - now_ns()) / 1e9 if deadline_ns else _FOLLOW_S
        with self._news:
            self._followers += 1
            try:
                if not (pending.arrived or (pending.stream is not None and pending.stream.can_go())):
                    self._news.wait(max(0.0, min(_FOLLOW_S, left_s)))
            finally:
                self._followers -= 1

    def _tell_followers(self) -> None:
        if self._followers:
            with self._news:
                self._news.notify_all()


def is_address(where: str, keys: Path | str | None) -> bool:
    """Whether a client goes by a gateway's address, not by a graph's name. Raises StartError for a name with keys."""
    if "://" not in where and keys is not None:
        raise StartError(
            f"keys= is for addresses, and {where!r} is the name of a graph on this host, which asks for none; leave "
            "keys out, or connect to tcp://host:port"
        )
    return "://" in where


def closed_error(whose: str) -> ClientClosed:
    """The error of a call after `close`."""
    return ClientClosed(f"this client of {whose} is closed")


def seconds_for_an_answer(deadline_ns: int) -> float:
    """How long a supervisor may take to answer, where that must be before a deadline (0: none)."""
    return min(ANSWER_WITHIN_S, max(0.0, (deadline_ns - now_ns()) / 1e9)) if deadline_ns else ANSWER_WITHIN_S


def late_answer(whose: str) -> SlabwireError:
    """The error of a call whose time ran out while another one connected anew."""
    return mark_not_begun(Disconnected(f"{whose} has ended, and no new one of that name has answered in time"))
