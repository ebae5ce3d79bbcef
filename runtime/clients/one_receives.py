"""Threads that share a connection: one of those that wait receives for all, the others follow it."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod

from ...shm.bell import now_ns
from ..dataplane.caller import timed_out
from ..dataplane.pending import Pending
from ..host.attempt import attempts_at_once

# A thread that waits while another one receives looks up this often, should the other have died.
_FOLLOW_S = 0.05


class OneReceives(ABC):
    """The waiting of a `Connection`. Whatever takes in answers tells the followers."""

    may_be_late = False  # what arrives may be no answer any more

    def __init__(self) -> None:
        self._receiving = threading.Lock()  # held by the one thread that receives
        self._try_to_receive = attempts_at_once(self._receiving)
        self._news = threading.Condition()
        self._followers = 0

    @abstractmethod
    def _receive(self, pending: Pending, deadline_ns: int) -> None:
        """Receives for all threads, until something has arrived for `pending` or the time is over."""

    def _refuse_late(self, pending: Pending, target: str) -> None:
        """The time is over. Raises DeadlineExceeded where nothing has arrived."""
        if not pending.arrived:
            raise timed_out(target)

    def wait(self, pending: Pending, deadline_ns: int, target: str) -> None:
        """Returns when something has arrived for `pending`: this thread receives, unless another one does already."""
        while not pending.arrived:
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
                if not pending.arrived:
                    self._news.wait(max(0.0, min(_FOLLOW_S, left_s)))
            finally:
                self._followers -= 1

    def _tell_followers(self) -> None:
        if self._followers:
            with self._news:
                self._news.notify_all()
