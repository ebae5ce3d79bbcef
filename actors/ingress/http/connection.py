"""One HTTP/1.1 connection: uvicorn's protocol, held to times and sizes."""

from __future__ import annotations

import asyncio
from typing import Any

from httptools import HttpParserError
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from .flow import OF_UVICORN, Flow, Pipeline, new_parser
from .request_head import (
    HEAD_TOO_LARGE,
    LARGEST_HEAD_NBYTES,
    MAKES_ROOM,
    MOST_PIPELINED,
    NO_HTTP,
    OVERDUE,
    TOO_FINE,
    TOO_MANY_WAIT,
    Part,
    Rejection,
    fault_of,
    with_its_authority,
)
from .response_rules import Answer
from .state import State

# A request's head fits into few packets: whoever needs longer holds a place and gives nothing for it.
HEAD_WITHIN_S = 10.0
# The largest body that is taken (4 MiB, see Limits) at 1 Mbit/s, nearly twice; what an application that asks sooner
# refuses, it refuses sooner.
BODY_WITHIN_S = 60.0
# A reader that takes nothing for so long, though more waits for it than the kernel and we keep, holds up a model.
READ_WITHIN_S = 30.0
# What waits for a slow reader here, beside the kernel's buffers: some hundred tokens.
WRITE_BUFFER_NBYTES = 64 * 1024
# How long a client may take to answer our good-bye when we need its place.
GOODBYE_WITHIN_S = 1.0
# At our end: whoever has only just connected, begun a request or had an answer is still heard.
FRESH_WITHIN_S = 1.0
# After an answer that came before the body was whole: for the rest of the body to come in, and for the answer to be
# read. A connection that is closed while more comes in is reset, and with it goes what the client has not read.
LINGER_S = 2.0
# Of requests whose call has returned.
_NOBODY_WAITS = asyncio.Event()


class Connection(HttpToolsProtocol):
    """uvicorn's protocol, held to times and sizes that it does not know.

    It also tells the request that is being answered, and not only the last one that came in, when the client has left.
    While the body of an answer goes on after its call, little is kept but what writes it.
    """

    __slots__ = (
        *("_answer", "_begun_at", "_body_nbytes", "_chunks", "_deaf", "_last_words", "_leaving", "_nbytes", "_part"),
        *("_rejection", "_request_timer", "_running", "_write_timer", "quiet_since", "state"),
        *OF_UVICORN,
    )

    def __init__(self, config: Config, state: State) -> None:
        super().__init__(config, state, {}, asyncio.get_running_loop())
        self.pipeline = Pipeline()  # type: ignore[assignment]
        self.state = state
        self._part = Part.WHOLE
        self._nbytes = 0  # of the request, as it came in
        self._body_nbytes = 0  # of its body
        self._chunks: list[bytes] = []  # of it, from the bytes that are being parsed
        self._running: RequestResponseCycle | None = None
        self._answer: Answer | None = None  # to that
        self._rejection = NO_HTTP
        self._last_words = b""
        self.quiet_since = self._begun_at = self.loop.time()
        self._deaf = False  # to all that still comes in
        self._leaving = False  # after the answers that are due
        self._request_timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None

    # -- its life ----------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.flow = Flow(transport)  # type: ignore[assignment]
        transport.set_write_buffer_limits(high=WRITE_BUFFER_NBYTES)
        self.state.shown(len(self.state.connections))
        self._watch_request()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._unset_keepalive_if_required()
        self._stop_watching()
        self._stop_waiting_for_reader()
        self._disconnect_requests()
        self.state.shown(len(self.state.connections))
        self.state.changed.set()

    def _disconnect_requests(self) -> None:
        """Tells the request that is being answered that nobody listens any more; those behind it never begin."""
        self.pipeline.clear()
        if self._running is not None and not self._running.response_complete:
            self._running.disconnected = True
            self._running.message_event.set()
            if self._answer is not None and self._answer.body is not None:
                self._answer.body.lose()

    @property
    def is_idle(self) -> bool:
        """Whether no request is being read or answered; the rest of one that was answered already is none."""
        return self._is_answered() and (self._part is Part.WHOLE or self._leaving)

    @property
    def streams_on(self) -> bool:
        """Whether the body of an answer goes on after its call."""
        return self._answer is not None and self._answer.is_left_open

    @property
    def is_fresh(self) -> bool:
        """Whether a request is about to come, or its rest: closed now, its client could not know what became of it."""
        is_waiting = self._is_answered() and self._part is not Part.BODY and not self.transport.is_closing()
        return is_waiting and self.loop.time() - max(self._begun_at, self.quiet_since) < FRESH_WITHIN_S

    @property
    def quiet_s(self) -> float:
        """Seconds since the last answer was complete, or since the connection was made."""
        return self.loop.time() - self.quiet_since

    @property
    def overdue_s(self) -> float | None:
        """Seconds since the request began whose rest is all that is waited for here; None where none is."""
        if self.transport.is_closing() or self.is_idle or not self._owes():
            return None
        return self.loop.time() - self._begun_at

    def _owes(self) -> bool:
        """Whether nothing can be done for this client until more of its request has come in."""
        if self._part is not Part.BODY or self._running is None:
            return self._part is Part.HEAD and self._is_answered()
        return self._running is self.cycle and not self._running.response_started and not self.flow.read_paused

    def _is_answered(self) -> bool:
        return not self.pipeline and (self._running is None or self._running.response_complete)

    def shutdown(self) -> None:
        """Closes: at once if it is idle, else after the answers to what has come in."""
        self._leaving = True
        if self._is_answered():
            self.hang_up()
        else:
            super().shutdown()

    def hang_up(self) -> None:
        """Says good-bye, and does not wait long for the other side to do so, too."""
        self._close(0.0 if self.quiet_s > GOODBYE_WITHIN_S else GOODBYE_WITHIN_S)

    timeout_keep_alive_handler = hang_up

    def make_room(self) -> None:
        """Turns away the request that is overdue, and leaves at once."""
        self._refuse(MAKES_ROOM)
        self._close(0.0)

    def _close(self, goodbye_s: float) -> None:
        self._stop_watching()
        if not self.transport.is_closing():  # asyncio's TLS transport, closed twice, cannot be aborted any more
            self.transport.close()
        if not goodbye_s:
            self.transport.abort()
        elif self._write_timer is None:
            self._request_timer = self.loop.call_later(goodbye_s, self.transport.abort)

    # -- requests ----------------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        if self._deaf or self.transport.is_closing():
            return  # TLS hands on what still comes after our good-bye
        self._nbytes += len(data)
        self.parser = self.parser or new_parser(self)
        super().data_received(data)
        self._hand_on()
        if self._part is Part.HEAD and self._nbytes > LARGEST_HEAD_NBYTES:
            self._turn_away(HEAD_TOO_LARGE)
        elif self._part is Part.BODY and self._nbytes > LARGEST_HEAD_NBYTES + 2 * self._body_nbytes:
            self._turn_away(TOO_FINE)
        elif not self.transport.is_closing():
            self._watch_request()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._part = Part.HEAD
        self._nbytes = self._body_nbytes = 0
        self._begun_at = self.loop.time()

    def on_headers_complete(self) -> None:
        fault = self._fault()
        if fault is not None or self._leaving or self.transport.is_closing():
            self._rejection = fault or NO_HTTP
            raise HttpParserError  # which ends the parsing: see send_400_response
        self._stop_watching()
        self.state.touch_date()
        self.headers[:] = with_its_authority(self.url, self.headers)
        super().on_headers_complete()
        self._part = Part.BODY
        if self.parser.should_upgrade():
            self._deaf = True
        if self._deaf or self.state.is_leaving:
            self.cycle.keep_alive = False

    def _fault(self) -> Rejection | None:
        if len(self.pipeline) >= MOST_PIPELINED:
            return TOO_MANY_WAIT
        parser, upgrade = self.parser, bool(self.parser.should_upgrade())
        return fault_of(parser.get_method(), self.url, parser.get_http_version(), self.headers, upgrade=upgrade)

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._part is not Part.BODY:  # fields behind a body are for nobody, and there may be any number of them
            super().on_header(name, value)

    def on_body(self, body: bytes) -> None:
        self._body_nbytes += len(body)
        self._chunks.append(body)

    def _hand_on(self) -> None:
        """Gives the application what has come of the body: all at once, however small the chunks are."""
        if self._chunks:
            body = b"".join(self._chunks)
            self._chunks.clear()
            super().on_body(body)

    def on_message_complete(self) -> None:
        self._hand_on()
        super().on_message_complete()
        self._part = Part.WHOLE
        self._stop_watching()
        if self._leaving and self._is_answered():
            self.hang_up()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        self._answer = Answer(cycle, self)
        super()._start_asgi_task(self._answer, app)  # type: ignore[arg-type]

    def leave_after_this(self) -> None:
        self._leaving = True

    def forget_request(self, cycle: RequestResponseCycle) -> None:
        self.state.tasks.discard(asyncio.current_task())  # from here on `streams_on` counts it
        cycle.message_event = _NOBODY_WAITS
        cycle.scope = {}  # type: ignore[typeddict-item]
        if cycle is self.cycle and self._part is Part.WHOLE:
            self.scope = cycle.scope
            self.headers, self.url = [], b""
            self.parser = None  # type: ignore[assignment]  # until more comes in

    def on_response_complete(self) -> None:
        self._answer = None
        super().on_response_complete()
        self.quiet_since = self.loop.time()
        self.state.changed.set()
        if self._leaving and self._is_answered():
            self._take_leave()

    def _take_leave(self) -> None:
        """Closes once the last answer is complete, or when no more can be made of it."""
        if self.transport.is_closing():
            return
        self.transport.write(self._last_words)
        self._unset_keepalive_if_required()
        self._stop_watching()
        if self._part is Part.BODY and not self._deaf:
            self._request_timer = self.loop.call_later(LINGER_S, self.hang_up)
        else:
            self._close(GOODBYE_WITHIN_S)

    # -- what is wrong with them -------------------------------------------------------------------------------------

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002
        """What uvicorn calls when the parser gives up."""
        if not self.transport.is_closing():
            self._turn_away(self._rejection)

    def _turn_away(self, rejection: Rejection) -> None:
        if self._leaving and self._part is not Part.BODY:
            self._deaf = True  # this would be a request behind the last one that is answered here
        else:
            self._refuse(rejection)

    def _refuse(self, rejection: Rejection) -> None:
        """Answers the request that comes in in the application's place, after those before it, and closes.

        The application may have begun to answer it: then it hears that nobody listens any more.
        """
        self.state.refused += 1
        self._stop_watching()
        self._deaf = self._leaving = True
        unheard = self._give_up() if self._part is Part.BODY else True
        if unheard:
            self._last_words = rejection.encode()
        if self._running is None or self._running.disconnected or self._is_answered():
            self._take_leave()

    def _give_up(self) -> bool:
        """Forgets the request whose body comes in. Whether nothing of an answer to it has gone out."""
        if self.cycle is not self._running:
            self.pipeline.popleft()  # uvicorn's latest stands on the left
            return True
        self._disconnect_requests()
        return not self.cycle.response_started

    def _watch_request(self) -> None:
        """Sets a time for what the client owes: the rest of a request, or its first byte."""
        if self._part is not Part.BODY and not self._is_answered():
            self._stop_watching()  # it owes nothing
        elif self._request_timer is None and self.timeout_keep_alive_task is None:
            within_s = BODY_WITHIN_S if self._part is Part.BODY else HEAD_WITHIN_S
            self._request_timer = self.loop.call_later(within_s, self._request_overdue)

    def _stop_watching(self) -> None:
        if self._request_timer is not None:
            self._request_timer.cancel()
            self._request_timer = None

    def _request_overdue(self) -> None:
        self._request_timer = None
        if self.flow.read_paused:
            self._watch_request()  # it is the application that does not read
        elif self.is_idle:
            self.hang_up()
        else:
            self._refuse(OVERDUE)

    # -- slow readers ------------------------------------------------------------------------------------------------

    def pause_writing(self) -> None:
        super().pause_writing()
        self._write_timer = self.loop.call_later(READ_WITHIN_S, self.transport.abort)
        if (body := self._answer and self._answer.body) and body.on_full:
            body.on_full()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stop_waiting_for_reader()
        if (body := self._answer and self._answer.body) and body.on_room:
            body.on_room()

    def _stop_waiting_for_reader(self) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None
