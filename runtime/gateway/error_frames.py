"""An error as the message that tells a remote client of it."""

from __future__ import annotations

from ..errors import SlabwireError
from ..message.payload import wire_form
from ..remote.frame_codec import pack_value
from ..remote.protocol import Frame, FrameKind, Head, pack_head


def error_frames(error: SlabwireError, number: int = 0) -> list[Frame]:
    """The message that tells a client of an error: of one call, or (0) of its whole conversation."""
    code, text = wire_form(error)
    head = Head(FrameKind.ERROR, number, code=code, not_begun=error.not_begun)
    return [pack_head(head), *pack_value(text)]
