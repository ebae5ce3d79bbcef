"""How a worker ended, in words. No I/O."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from typing import Literal

Kind = Literal["stopped", "exit", "error", "signal", "out_of_memory", "hang", "start_timeout", "stop_timeout"]

# What a signal mostly means that ends a Python process. Others are named only.
MEANINGS = {
    signal.SIGABRT: "a C library gave up, as ZeroMQ does when its descriptors are closed, or os.abort was called",
    signal.SIGBUS: "it touched memory that could not be had: a file that was cut, or a machine without memory",
    signal.SIGFPE: "C code divided by zero",
    signal.SIGHUP: "its terminal was closed, or somebody sent it",
    signal.SIGILL: "C code for another processor, or a damaged stack",
    signal.SIGINT: "somebody interrupted it",
    signal.SIGKILL: "somebody killed it",
    signal.SIGPIPE: "it wrote to nobody",
    signal.SIGSEGV: "C code touched memory that is not there",
    signal.SIGSYS: "a system call that is forbidden here, by seccomp",
    signal.SIGTERM: "somebody ended it",
    signal.SIGTRAP: "C code found an error of its own",
    signal.SIGXCPU: "its limit of CPU time, ulimit -t",
    signal.SIGXFSZ: "a file above its limit, ulimit -f",
}


@dataclass(frozen=True)
class ExitReason:
    """`text` is the sentence; `status` as of subprocess: negative for a signal."""

    kind: Kind
    status: int
    text: str

    @property
    def failed(self) -> bool:
        """Whether it was none that a `transient` actor may end with."""
        return self.status != 0 or self.kind in ("hang", "start_timeout")

    @property
    def was_obedient(self) -> bool:
        """Whether it is how one ends that was told to, be it before it could listen."""
        return self.status in (0, -signal.SIGTERM)

    def __str__(self) -> str:
        return self.text


def ending(
    status: int, *, overdue: ExitReason | None = None, killer: str | None = None, error: str | None = None
) -> ExitReason:
    """What a status means, with what else is known: that it was killed for being late (`overdue`), that the kernel
    killed it for memory (`killer` says by which limit), and the error that it reported itself.
    """
    if overdue is not None:
        return ExitReason(overdue.kind, status, overdue.text)
    if status == -signal.SIGKILL and killer is not None:
        return ExitReason("out_of_memory", status, f"killed by the kernel for memory (SIGKILL): {killer}")
    if status < 0:
        return ExitReason("signal", status, f"killed by {_signal(-status)}")
    if error is not None:
        return ExitReason("error", status, f"ended with status {status}: {error}")
    return ExitReason("exit", status, f"ended with status {status}") if status else ExitReason("stopped", 0, "ended")


def _signal(number: int) -> str:
    try:
        name = signal.Signals(number)
    except ValueError:
        return f"signal {number}"
    return f"{name.name} ({MEANINGS[name]})" if name in MEANINGS else name.name


def late(kind: Kind, within_s: float) -> ExitReason:
    """For a worker that is about to be killed because it did not get on."""
    texts = {
        "hang": "hung and was killed",
        "start_timeout": f"did not start within {within_s:g} s (start_timeout_s) and was killed",
        "stop_timeout": f"did not stop within {within_s:g} s (hang_after_s) and was killed",
    }
    return ExitReason(kind, 0, texts[kind])
