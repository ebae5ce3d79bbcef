"""A shell in a terminal of its own, for tests of what a user sees and types there."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
from types import TracebackType
from typing import Self

_READ_WITHIN_S = 60
_NOISE = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]|\r")


def _begin_session() -> None:
    """As a window does: nothing of what the test run was started with, such as nohup, lives on in it."""
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


class Terminal:
    """`bash` with job control; `keys` types, `read_until` reads what has come since. Leaving it hangs up."""

    def __init__(self, columns: int = 200, rows: int = 40, **environment: str) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.process = subprocess.Popen(
            ["bash", "--norc", "--noprofile", "-i"],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            preexec_fn=_begin_session,
            env={**os.environ, "PS1": "$ ", "TERM": "xterm-256color", **environment},
        )
        os.close(slave)
        self.text = ""
        self._rest = ""
        self.read_until(r"\$ ")

    def keys(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    def command(self, line: str) -> None:
        """Types a line; what it prints is read by `read_until`."""
        self.keys(f"{line}\n")
        self.read_until(re.escape(line[-10:]) + "\n")

    def status(self) -> int:
        """That of the last command."""
        self.command("echo status=$?")
        return int(self.read_until(r"status=(\d+)\n")[1])

    def read_until(self, pattern: str) -> re.Match[str]:
        """Reads to the end of the first match; what comes after it is left for the next call."""
        while not (match := re.search(pattern, self._rest)):
            ready, _, _ = select.select([self._master], [], [], _READ_WITHIN_S)
            assert ready, f"{pattern!r} does not come; after {self.text[-2000:]!r} came {self._rest!r}"
            self._rest += _NOISE.sub("", os.read(self._master, 65536).decode(errors="replace"))
        self.text += self._rest[: match.end()]
        self._rest = self._rest[match.end() :]
        return match

    def settings(self) -> list[object]:
        """What the terminal does with what is typed, as the shell leaves it to commands."""
        self.command("stty -g")
        return [self.read_until(r"\n")[0]]

    def hang_up(self) -> None:
        """The window is closed."""
        if self._master >= 0:
            os.close(self._master)
            self._master = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.hang_up()
        self.process.wait()
