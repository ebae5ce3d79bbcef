"""What a worker prints when there is no room for it: a full disk must not fail the call that prints."""

from __future__ import annotations

import errno
import io
import sys
from collections.abc import Callable
from typing import Any

# No room on the disk, over the quota, over `ulimit -f`; and a medium that is broken.
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


class Output(io.FileIO):
    """A log that is written to as far as it goes; once there is room again it says how much is missing."""

    def __init__(self, descriptor: int) -> None:
        super().__init__(descriptor, "a", closefd=False)
        self.missing = 0
        self._why = ""

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        try:
            if self.missing:
                super().write(f"\n({self.missing} bytes of output are missing here: {self._why})\n".encode())
                self.missing = 0
            done = super().write(view)
        except OSError as error:
            if error.errno not in _NO_ROOM:
                raise
            self.missing += len(view)
            self._why = str(error.strerror)
            return len(view)
        return len(view) if done is None else done  # what was cut off comes again, and fails then


def survive_full_disk(make: Callable[[int], Output] = Output) -> None:
    """From here on what Python code of this process prints is lost where it cannot be written.

    `make` gives what writes to a descriptor.
    """
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        before = getattr(sys, name)
        stream = io.TextIOWrapper(make(descriptor), before.encoding, "backslashreplace", write_through=True)
        setattr(sys, name, stream)
