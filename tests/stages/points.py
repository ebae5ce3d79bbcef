"""Named points of a message's life, at which a process of a test ends or stops itself.

The library has no hooks: `Strikes.arm` wraps the method that marks a point, in the process that is to be struck.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from slabwire.shm.bell import Bell
from slabwire.shm.consumer import Consumer
from slabwire.shm.inflight import Inflight
from slabwire.shm.lease import Lease
from slabwire.shm.pool import Pool
from slabwire.shm.producer import Producer

# By point: the methods that mark it, and whether the process is struck before or after one of them does its work.
POINTS: dict[str, tuple[tuple[tuple[type, str], ...], str]] = {
    "loaned": (((Pool, "take"),), "after"),
    "written": (((Producer, "publish"),), "before"),
    "published": (((Producer, "publish"),), "after"),
    "popped": (((Inflight, "begin_running"), (Inflight, "keep")), "before"),
    "begun": (((Inflight, "begin_running"), (Inflight, "keep")), "after"),
    "handled": (((Consumer, "commit"), (Inflight, "clear")), "before"),
    "committed": (((Consumer, "commit"), (Inflight, "clear")), "after"),
    "released": (((Consumer, "release"),), "after"),
    "forwarded": (((Producer, "publish"),), "after"),
    "parked": (((Bell, "park"),), "after"),
    "waking": (((Bell, "unpark"),), "before"),
}


class Strikes:
    """What is to befall one process and its successors, kept in a folder: the n-th strike makes the file `struck-n`.

    Each is a point, a signal, and at which pass of the point it comes, counted from when it is armed.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def plan(cls, folder: Path, strikes: list[tuple[str, int, int]]) -> Strikes:
        folder.mkdir(parents=True)
        (folder / "plan").write_text(json.dumps(strikes))
        return cls(folder)

    def planned(self) -> list[tuple[str, int, int]]:
        return [(point, number, passes) for point, number, passes in json.loads((self.folder / "plan").read_text())]

    def done(self) -> int:
        """How many have come."""
        return len(list(self.folder.glob("struck-*")))

    def is_over(self) -> bool:
        return self.done() == len(self.planned())

    def arm(self) -> None:
        """In the process that is to be struck: wraps the methods that mark the next point, if there is one."""
        number, planned = self.done(), self.planned()
        if number < len(planned):
            point, sign, passes = planned[number]
            _Strike(self, number, point, sign, passes).wrap()


class _Strike:
    def __init__(self, strikes: Strikes, number: int, point: str, sign: int, passes: int) -> None:
        self.strikes, self.number, self.sign, self.left = strikes, number, sign, passes
        self.marks, self.when = POINTS[point]
        self.only_forwards = point == "forwarded"
        self.wrapped: list[tuple[type, str, Any]] = []

    def wrap(self) -> None:
        for owner, name in self.marks:
            original = getattr(owner, name)
            self.wrapped.append((owner, name, original))
            setattr(owner, name, self._marked(original))

    def _marked(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def marked(it: Any, *arguments: Any, **named: Any) -> Any:
            if self.when == "before":
                self._passes()
            result = original(it, *arguments, **named)
            if self.when == "after" and (not self.only_forwards or _has_forwarded(it)):
                self._passes()
            return result

        return marked

    def _passes(self) -> None:
        self.left -= 1
        if self.left == 0:
            for owner, name, original in self.wrapped:
                setattr(owner, name, original)
            (self.strikes.folder / f"struck-{self.number}").touch()
            os.kill(os.getpid(), self.sign)
            if self.sign == signal.SIGSTOP:
                self.strikes.arm()  # somebody has let it go on


def _has_forwarded(producer: Producer) -> bool:
    """Whether the record that was published last hands on somebody else's block."""
    generation, holder = producer.holders.get(producer._newest, (0, None))
    return generation == producer.head and isinstance(holder, Lease)
