"""Rings once for all that the tasks of a loop send in one pass: a ring may wake a process, and then little is there."""

from __future__ import annotations

from collections.abc import Callable

from ...shm.bell import RECORDS, Ringer, now_ns
from ...shm.producer import Producer

# Tasks that go on after an answer mostly send the next request within some 50 µs each. Those that compute for longer
# do so side by side with the peer.
_LONGEST_NS = 500_000


class HeldRings:
    """Of one connection. One thread.

    A process that dies while it holds a ring needs no answer, and its peers are woken by the word that it is gone.
    """

    def __init__(self) -> None:
        self._held: set[Ringer] = set()
        self.is_holding = False
        self._since_ns = 0

    def hold(self) -> None:
        """Several tasks have been woken: what they send is rung for once they have run, by `ring`."""
        self.is_holding = True
        self._since_ns = now_ns()

    def ring(self) -> None:
        """Rings all that were to be rung meanwhile and still sleep."""
        self.is_holding = False
        while self._held:
            self._held.pop().ring(RECORDS)

    def use(self, producer: Producer) -> None:
        """From now on its consumer is rung in this way."""
        producer.wake = self._of(producer.consumer)

    def _of(self, ringer: Ringer) -> Callable[[int], None]:
        def wake(waiting: int) -> None:
            if self.is_holding and now_ns() - self._since_ns < _LONGEST_NS:
                self._held.add(ringer)
            else:
                ringer.ring_for(waiting)
                self._since_ns = now_ns()

        return wake
