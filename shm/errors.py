"""The root of all errors, and those that the memory floor raises."""

from __future__ import annotations

from typing import ClassVar


class SlabwireError(Exception):
    """Root of all errors of this package.

    `code` is what travels in a record or a frame, `http_status` is what an ingress answers with.
    The text names the thing, the cause and the remedy.
    """

    code: ClassVar[str] = "internal"
    http_status: ClassVar[int] = 500
    not_begun: bool = False  # True where the work that it ended had surely not begun: asking again repeats nothing
    detail: str = ""  # the traceback that it came from, where there is one; shown with --debug


class MessageError(SlabwireError, TypeError):
    """A value that a message cannot carry, or that does not fit the port it was sent to."""

    code = "bad_message"
    http_status = 400


class OutOfMemory(SlabwireError, MemoryError):
    """A slab or segment that a limit does not allow; the text names limit, request and setting."""

    code = "out_of_memory"
    http_status = 503


class LayoutError(SlabwireError):
    """A layout that breaks a rule, or a segment that does not have the layout it should have."""

    code = "layout"


class StaleReference(SlabwireError):
    """A reference to a block that has been used again since."""

    code = "stale_reference"


class CorruptLane(SlabwireError):
    """Words or records of a lane that no correct peer can have written."""

    code = "corrupt_lane"
