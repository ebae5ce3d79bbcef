"""What waits for one client: bytes that ZeroMQ was given for it, and that have not left this process.

ZeroMQ counts messages, not bytes, and tells nobody. But it says when it has let go of a frame that it did not copy, and
frames leave in their order; so some frames are marks, behind which everything before them has left, too.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import zmq

from ..remote.protocol import Frame

# A mark costs 15 µs. Bytes between two marks may still be counted though they have left. Frames above this size are
# not copied by pyzmq either.
_MARK_EVERY_NBYTES = 64 << 10
# What ZeroMQ keeps of a frame beside its bytes.
_FRAME_NBYTES = 128


class Backlog:
    """Of one client. One thread."""

    def __init__(self) -> None:
        self._nbytes = self._unmarked = 0
        self._marks: deque[tuple[zmq.MessageTracker, int]] = deque()

    def enter(self, frames: Sequence[Frame]) -> list[Frame | zmq.Frame]:
        """Counts a message; returns it as it is to be sent, uncopied, and then to be let go of."""
        nbytes = sum(map(len, frames)) + len(frames) * _FRAME_NBYTES
        self._nbytes += nbytes
        self._unmarked += nbytes
        if self._unmarked < _MARK_EVERY_NBYTES:
            return [*frames]
        last = zmq.Frame(frames[-1], track=True, copy=False, copy_threshold=0)
        self._marks.append((last.tracker, self._unmarked))
        self._unmarked = 0
        return [*frames[:-1], last]

    @property
    def nbytes(self) -> int:
        """What waits now."""
        while self._marks and self._marks[0][0].done:
            self._nbytes -= self._marks.popleft()[1]
        return self._nbytes
