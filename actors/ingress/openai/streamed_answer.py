"""An answer whose body stays open when its call has returned."""

from __future__ import annotations

from ..requests.metrics import Tally
from ..requests.refusals import ClientLeft
from ..requests.streamed_body import StreamedBody
from .admission import Admission
from .chunks import event
from .event_stream import PING
from .narrator import Narrator
from .open_answers import OpenAnswers


class StreamedAnswer:
    """Lives by callbacks alone. It ends once, by whichever comes first:

    =============================================  ========================  =============
    what ends it                                   the last of the body      counted as
    =============================================  ========================  =============
    every choice has come to its end               usage if asked, `[DONE]`  200
    an error of a choice, its deadline among them  an event that says why    the error's
    the end of the server                          an event that says why    503
    the client left                                nothing                   499
    =============================================  ========================  =============

    Then it gives back what the request holds, before the body ends: the next request on the connection begins there.
    """

    __slots__ = ("_admission", "_body", "_is_over", "_narrator", "_open", "_tally", "turn")

    def __init__(
        self, admission: Admission, narrator: Narrator, body: StreamedBody, tally: Tally, among: OpenAnswers
    ) -> None:
        self.turn = 0  # when `among` looks at it
        self._admission = admission.keep()
        self._narrator = narrator
        self._body = body
        self._tally = tally
        self._open = among
        self._is_over = False

    def go(self) -> None:
        """Hands on what comes, to its end. Called once, when nobody else watches over the request any more."""
        self._narrator.begin(self._body)
        self._body.on_left = self.leave
        self._open.add(self)
        if self._body.has_left:
            self.leave()
        elif not self._is_over:
            self._admission.choices.lead(self._narrator.take, self._over, self._narrator.pieces_of)

    def ping(self) -> None:
        """Breaks a silence that has lasted since the last call of this."""
        if self._narrator.is_silent and not self._body.is_full:
            self._body.write(PING)
            self._narrator.is_silent = False
        else:
            self._narrator.is_silent = True

    def leave(self) -> None:
        """The client has left."""
        self._end(ClientLeft.http_status, None)

    def fail(self, error: Exception) -> None:
        """An error ends it."""
        if not self._is_over:
            problem = self._open.problem(error, self._tally)
            self._end(problem.status, event(problem.body()))

    def _over(self) -> None:
        """The choices are over."""
        try:
            last = self._narrator.closing(self._admission.choices.endings())
        except Exception as error:
            self.fail(error)
        else:
            self._end(200, last)

    def _end(self, status: int, last: bytes | None) -> None:
        if self._is_over:
            return
        self._is_over = True
        self._open.discard(self)
        self._admission.give_back()
        if last is not None:
            self._body.end(last)
        self._tally.end(status)
