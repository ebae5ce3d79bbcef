"""The near end of a descriptor channel: asks the supervisor, waits for its answer, hears what it tells unasked."""

from __future__ import annotations

import contextlib
import select
import threading
from typing import Any, Protocol

from ...shm.bell import now_ns
from ..control.asks import ASKS, Ask
from ..control.news import NEWS, News
from ..control.offers import OFFERS, Offer
from ..errors import DeadlineExceeded, Disconnected, SlabwireError, error_from_wire
from .descriptor_channel import Channel, close_all

# The supervisor answers in well under a millisecond; on a machine that is swapping or stopped it may take long.
ANSWER_WITHIN_S = 20.0
# Of the first question. Who is turned away gets its answer before it has asked.
FIRST_TOKEN = 1


class Listener(Protocol):
    """Who hears what a supervisor says, in the order in which it was said."""

    def offered(self, offers: list[Offer], descriptors: list[int]) -> None:
        """Takes the descriptors over."""

    def told(self, news: News) -> None: ...


class Unheard:
    """The listener of a line whose owner is not there yet, or wants nothing."""

    def offered(self, _: list[Offer], descriptors: list[int]) -> None:
        close_all(descriptors)

    def told(self, news: News) -> None: ...


class Link:
    """What a worker or a local client holds of the supervisor. Any thread may ask.

    `is_torn`, to be asked where nobody is hearing news: some were lost, since an exception that a signal's handler
    raised, KeyboardInterrupt for one, came after they had been received and before they were taken in.
    """

    def __init__(self, channel: Channel, listener: Listener) -> None:
        self.channel = channel
        self.listener = listener
        self._lock = threading.RLock()
        self._last_token = FIRST_TOKEN - 1
        self._answers: dict[int, dict[str, Any]] = {}
        self.is_torn = False

    def ask(self, ask: Ask) -> None:
        """Asks and waits until it was done. Raises what the supervisor refuses with, Disconnected when it is gone."""
        with self._lock:
            self._last_token += 1
            token = self._last_token
            try:
                self.channel.send(ASKS.document(ask, token=token))
            except Disconnected:
                if not self._heard_last(token):
                    raise
            answer = self._await(token)
        if "error" in answer:
            raise error_from_wire(*answer["error"])

    def pump(self) -> bool:
        """Hears all that has come; True if there was something. Raises Disconnected when the supervisor is gone."""
        with self._lock:
            heard = False
            was_torn, self.is_torn = self.is_torn, True
            try:
                while (received := self.channel.receive()) is not None:
                    self._take(*received)
                    heard = True
            except SlabwireError:
                self.is_torn = was_torn
                raise
            self.is_torn = was_torn
            return heard

    def _await(self, token: int) -> dict[str, Any]:
        poll = select.poll()
        until = now_ns() + int(ANSWER_WITHIN_S * 1e9)
        while token not in self._answers:
            poll.register(self.channel.fileno(), select.POLLIN | (select.POLLOUT if self.channel.has_unsent else 0))
            poll.poll(1000)
            try:
                self.channel.flush()
                self.pump()
            except Disconnected:
                if not self._heard_last(token):
                    raise
            if now_ns() > until and token not in self._answers:
                raise DeadlineExceeded(f"the supervisor did not answer within {ANSWER_WITHIN_S:.0f} s: is it stopped?")
        return self._answers.pop(token)

    def _heard_last(self, token: int) -> bool:
        """Whether the answer came before the end."""
        with contextlib.suppress(Disconnected):
            self.pump()
        return token in self._answers

    def _take(self, document: dict[str, Any], descriptors: list[int]) -> None:
        if "answer" in document:
            self._answers[document["answer"]] = document
        elif "offers" in document:
            self.listener.offered([OFFERS.read(each) for each in document["offers"]], descriptors)
        else:
            self.listener.told(NEWS.read(document))

    def close(self) -> None:
        self.channel.close()
