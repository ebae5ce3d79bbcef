"""The end of a worker's log: the last lines, and the stacks that faulthandler wrote when it died or hung. No I/O."""

from __future__ import annotations

import re
from collections.abc import Sequence

LINES = 60
# Of each of the texts in a report.
LONGEST_TEXT = 32 << 10

# All lines that faulthandler writes: Python's Modules/faulthandler.c and Python/traceback.c.
_STACK = re.compile(
    r'Fatal Python error: |(Current thread|Thread) 0x[0-9a-f]+|  File "|  \.\.\.$|  <|  Garbage-|Extension |$'
)
_THREAD = re.compile(r"(Current thread|Thread) 0x[0-9a-f]+")


def stacks_in(lines: Sequence[str]) -> list[str]:
    """The last stacks of all threads in a log; none if nobody wrote any."""
    found: list[str] = []
    block: list[str] = []
    for line in (*lines, "end"):
        if _STACK.match(line):
            block.append(line)
            continue
        if any(map(_THREAD.match, block)):
            found = block
        block = []
    return "\n".join(found).strip("\n").splitlines()


def shortened(text: str) -> str:
    """Its end, where it is too long: what happened last stands there."""
    return (
        text
        if len(text) <= LONGEST_TEXT
        else f"[{len(text) - LONGEST_TEXT} characters are left out]\n{text[-LONGEST_TEXT:]}"
    )
