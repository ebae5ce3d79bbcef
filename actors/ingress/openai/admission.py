"""What one request holds while it is answered."""

from __future__ import annotations

from ....runtime.actor.stream_group import StreamGroup
from ..requests.limits import Place
from .chat_request import ChatRequest
from .choices import Choices
from .seats import Seats


class Admission:
    """A place here, seats at the model's actor, and the streams that come from there: given back together, once.

    Whoever `keeps` it gives it back; otherwise it is given back when the request's call ends.
    """

    __slots__ = ("_actor", "_place", "_seats", "_taken", "choices", "is_kept")

    def __init__(self, place: Place, seats: Seats, actor: str, timeout_s: float) -> None:
        self.choices = Choices(actor, timeout_s)
        self.is_kept = False
        self._place = place
        self._seats, self._actor, self._taken = seats, actor, 0

    async def begin(self, streams: StreamGroup, asked: ChatRequest) -> Choices:
        """Waits for seats, begins the streams, and waits until the model has taken all of them on. Raises why it has
        not.
        """
        self._taken = await self._seats.take(self._actor, asked.n)
        await self.choices.begin(streams, asked)
        await self.choices.accepted()
        return self.choices

    def keep(self) -> Admission:
        """It outlives the call."""
        self.is_kept = True
        return self

    def give_back(self) -> None:
        """The request is over. Idempotent."""
        self.choices.close()
        self._seats.give_back(self._actor, self._taken)
        self._taken = 0
        self._place.give_back()
