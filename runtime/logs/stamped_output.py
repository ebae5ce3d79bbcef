"""What Python code of a worker prints: each line of its log begins with the time at which it was begun, in UTC."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from .full_disk import Output, survive_full_disk


@dataclass
class _Place:
    """Which stream of this process has begun a line in the log and not ended it; threads and forks may interrupt it."""

    midst_of: Stamped | None = None


class Stamped(Output):
    """Writes at once what it is given, for the process may be killed on the next line. Both streams share a place."""

    def __init__(self, descriptor: int, place: _Place) -> None:
        super().__init__(descriptor)
        self._place = place
        self._second, self._text = 0, b""

    def write(self, data: Any) -> int:
        text = data if type(data) is bytes else bytes(data)
        if not text:
            return 0
        place = self._place
        if place.midst_of is not self or b"\n" in text[:-1]:
            text = self._with_stamps(text)
        place.midst_of = None if text[-1:] == b"\n" else self
        done = super().write(text)
        while done < len(text):  # a file takes at most 2 GiB at once, and one on a full disk less
            done += super().write(memoryview(text)[done:])
        return len(data)

    def _with_stamps(self, text: bytes) -> bytes:
        stamp, midst_of = self._stamp(), self._place.midst_of
        if b"\n" in text[:-1]:
            text = text[:-1].replace(b"\n", b"\n" + stamp) + text[-1:]
        if midst_of is self:
            return text
        return stamp + text if midst_of is None else b"\n" + stamp + text

    def _stamp(self) -> bytes:
        second, micros = divmod(time.time_ns() // 1000, 1_000_000)
        if second != self._second:
            self._text = time.strftime("%Y-%m-%dT%H:%M:%S.", time.gmtime(second)).encode()
            self._second = second
        return b"%b%06dZ " % (self._text, micros)


def stamp_output() -> None:
    """From here on Python's streams write into the log line by line; what cannot be written is lost, and counted.

    Descriptors 1 and 2 stay as they are: C libraries and child processes must never wait for a reader that was stopped.
    """
    place = _Place()
    survive_full_disk(lambda descriptor: Stamped(descriptor, place))
