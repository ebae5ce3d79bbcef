"""The stream that a remote client's call sends: messages into an outbox, against the gateway's credit. No I/O."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from ..message.header import Kind
from ..message.payload import wire_form
from ..message.sent_stream import SentStream
from .frame_codec import pack_value
from .protocol import SENT_WINDOW_NBYTES, Frame, FrameKind, Head, pack_head


class RemoteSentStream(SentStream):
    """Of the call `number`. `said()` is called when something lies in the outbox.

    Credit comes in one thread at a time, and one sends; each has numbers of its own.
    """

    __slots__ = ("_granted", "_number", "_outbox", "_returned_nbytes", "_said", "_sent", "_sent_nbytes")

    def __init__(
        self, outbox: deque[list[Frame]], number: int, source: Any, said: Callable[[], object] | None = None
    ) -> None:
        super().__init__(source)
        self._outbox = outbox
        self._number = number
        self._said = said
        self._granted = self._sent = self._returned_nbytes = self._sent_nbytes = 0

    def grant(self, items: int, nbytes: int) -> None:
        """The gateway has room for so many items more, and holds so many bytes no more."""
        self._granted += items
        self._returned_nbytes += nbytes
        if self.can_go():
            self.go_on()

    def can_go(self) -> bool:
        if self.is_over or self.has_ended:
            return False
        return self._sent < self._granted and self._sent_nbytes - self._returned_nbytes < SENT_WINDOW_NBYTES

    def wait(self) -> None:
        """Credit comes unasked."""

    def _publish(self, kind: Kind, value: Any) -> bool:
        # Copied: it leaves later, and the iterable may use an array again.
        if kind is Kind.ITEM:
            frames: list[Frame] = [bytes(each) for each in pack_value(value)]
            self._sent += 1
            self._sent_nbytes += sum(map(len, frames))
            head = Head(FrameKind.ITEM, self._number)
        elif kind is Kind.ERROR:
            code, text = wire_form(value)
            head, frames = Head(FrameKind.ERROR, self._number, code=code), pack_value(text)
        else:
            head, frames = Head(FrameKind.END, self._number), pack_value(None)
        self._outbox.append([pack_head(head), *frames])
        if self._said is not None:
            self._said()
        return True
