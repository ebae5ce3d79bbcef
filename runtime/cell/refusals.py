"""Why an input is not handled: nobody waits for it, its time is over, or its actor has died of it too often."""

from __future__ import annotations

from ...shm.bell import now_ns
from ..errors import Cancelled, DeadLetter, DeadlineExceeded, Draining, SlabwireError, cut_off_error
from .cancels import Cancels
from .inlets import Inlets
from .outlets import Outlets
from .work import Work


class Refusals:
    """For one actor instance. `is_draining`: no new work of clients is taken; `is_cut`: nothing is. One thread."""

    def __init__(self, instance: str, max_attempts: int, cancels: Cancels, inlets: Inlets, outlets: Outlets) -> None:
        self.is_draining = self.is_cut = False
        self.instance = instance
        self._max_attempts = max_attempts
        self._cancels = cancels
        self._inlets = inlets
        self._outlets = outlets

    def why(self, work: Work) -> SlabwireError | None:
        """The error that an input is refused with; None if it is handled."""
        header = work.header
        if self._cancels and header.reply_to and header.key in self._cancels:
            return Cancelled("its caller cancelled it")
        if header.reply_to not in self._outlets.replies and self._outlets.streams_to_nobody(work):
            return Cancelled("its caller is gone, and nobody else gets this stream")
        if header.deadline_ns and now_ns() > header.deadline_ns:
            self._outlets.stats.count("expired")
            return DeadlineExceeded(f"the deadline passed while it waited for {self.instance}")
        if self.is_draining and work.attempt == 1 and self._inlets.is_clients(work.lane):
            return Draining("the graph is stopping and takes no new work")
        if self.is_cut:
            return cut_off_error(self.instance)
        if (attempts := work.attempt - work.pardons) > self._max_attempts:
            often = "once" if attempts == 2 else f"{attempts - 1} times"
            return DeadLetter(f"{self.instance} died {often} while handling it; it is not tried again")
        return None
