"""One HTTP/1.1 connection: uvicorn's protocol, held to times and sizes."""

from __future__ import annotations

import asyncio

from httptools import HttpParserError, HttpParserUpgrade
from uvicorn.config import Config
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from .answer import Answer
from .deadline import Deadline
from .flow import OF_UVICORN, Flow, new_parser
from .request_head import (
    HEAD_TOO_LARGE,
    LARGEST_HEAD_NBYTES,
    MAKES_ROOM,
    NO_HTTP,
    OVERDUE,
    TOO_FINE,
    Part,
    Rejection,
    fault_of,
)
from .scope import scope_of
from .state import State

# A request's head fits into few packets: whoever needs longer holds a place and gives nothing for it.
HEAD_WITHIN_S = 10.0
# The largest body that is taken (4 MiB, see Limits) at 1 Mbit/s, nearly twice.
BODY_WITHIN_S = 60.0
# What waits for a slow reader here, beside the kernel's buffers: some hundred tokens.
WRITE_BUFFER_NBYTES = 64 * 1024
# How long a client may take to answer our good-bye when we need its place.
GOODBYE_WITHIN_S = 1.0
# At our end: whoever has only just connected, begun a request or had an answer is still heard.
FRESH_WITHIN_S = 1.0
# After an answer that came before the body was whole: for the rest of the body to come in, and for the answer to be
# read. A connection that is closed while more comes in is reset, and with it goes what the client has not read.
LINGER_S = 2.0


class Connection(HttpToolsProtocol):
    """The frame of uvicorn's protocol, held to times and sizes. The request that is being answered is told that its
    client has left. While the body of an answer goes on after its call, little is kept but what writes it.
    """

    __slots__ = (
        *("_answer", "_begun_at", "_body_nbytes", "_chunks", "_deadline", "_deaf", "_last_words", "_leaving"),
        *("_is_kept", "_nbytes", "_part", "_rejection", "quiet_since", "state"),
        *OF_UVICORN,
    )

    def __init__(self, config: Config, state: State) -> None:
        super().__init__(config, state, {}, asyncio.get_running_loop())
        self.pipeline: list[Answer] = []  # type: ignore[assignment]  # behind the one that is being made
        self.state = state
        self.cycle: Answer = None  # type: ignore[assignment]  # the latest
        self.flow: Flow  # type: ignore[assignment]
        self._part = Part.WHOLE
        self._nbytes = 0  # of the request, as it came in
        self._body_nbytes = 0  # of its body
        self._chunks: list[bytes] = []  # of it, from the bytes that are being parsed
        self._answer: Answer | None = None  # that is being made
        self._rejection = NO_HTTP
        self._last_words = b""
        self.quiet_since = self._begun_at = self.loop.time()
        self._deaf = False  # to all that still comes in
        self._leaving = False  # after the answers that are due
        self._deadline = Deadline(self.loop)  # of what the client owes
        self._is_kept = False  # whether that is the next request

    # -- its life ----------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.flow = Flow(transport)
        transport.set_write_buffer_limits(high=WRITE_BUFFER_NBYTES)
        self.state.shown(len(self.state.connections))
        self._watch_request()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._deadline.end()
        self._disconnect_requests()
        self.cycle = self._answer = None  # type: ignore[assignment]  # else they would keep each other
        self.state.shown(len(self.state.connections))
        self.state.changed.set()

    def _disconnect_requests(self) -> None:
        """Tells the request that is being answered that nobody listens any more; those behind it never begin."""
        self.pipeline.clear()
        answer = self._answer
        if answer is not None:
            answer.disconnected = True
            answer.message_event.set()
            if answer.body is not None:
                answer.body.lose()

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
        answer = self._answer
        if self._part is not Part.BODY or answer is None:
            return self._part is Part.HEAD and self._is_answered()
        return answer is self.cycle and not answer.response_started and not self.flow.read_paused

    def _is_answered(self) -> bool:
        return self._answer is None and not self.pipeline

    def shutdown(self) -> None:
        """Closes: at once if it is idle, else after the answers to what has come in."""
        self._leaving = True
        if self._is_answered():
            self.hang_up()
        else:
            self.cycle.keep_alive = False

    def hang_up(self) -> None:
        """Says good-bye, and does not wait long for the other side to do so, too. What is still to be read is read."""
        is_late = self.quiet_s > GOODBYE_WITHIN_S and not self.transport.get_write_buffer_size()
        self._close(0.0 if is_late else GOODBYE_WITHIN_S)

    def make_room(self) -> None:
        """Turns away the request that is overdue, and leaves at once."""
        self._refuse(MAKES_ROOM)
        self._close(0.0)

    def _close(self, goodbye_s: float) -> None:
        self._deadline.clear()
        if not self.transport.is_closing():  # asyncio's TLS transport, closed twice, cannot be aborted any more
            self.transport.close()
        if not goodbye_s:
            self.transport.abort()
        elif not self.transport.get_write_buffer_size():  # else the transport gives it 30 s
            self._deadline.set(self.loop.time() + goodbye_s, self.transport.abort)

    # -- requests ----------------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        if self._deaf or self.transport.is_closing():
            return  # TLS hands on what still comes after our good-bye
        if self._is_kept:
            self._is_kept = False
            self._deadline.clear()
        self._nbytes += len(data)
        self.parser = self.parser or new_parser(self)
        try:
            self.parser.feed_data(data)
        except HttpParserUpgrade:
            pass  # what follows is for nobody: see on_headers_complete
        except HttpParserError:
            if not self.transport.is_closing():
                self._turn_away(self._rejection)
        if self._chunks:
            self._hand_on()
        if self._part is Part.WHOLE and self._answer is not None:
            return  # it owes nothing, and that is the usual case
        if self._part is Part.HEAD and self._nbytes > LARGEST_HEAD_NBYTES:
            self._turn_away(HEAD_TOO_LARGE)
        elif self._part is Part.BODY and self._nbytes > LARGEST_HEAD_NBYTES + 2 * self._body_nbytes:
            self._turn_away(TOO_FINE)
        elif not self.transport.is_closing():
            self._watch_request()

    def on_message_begin(self) -> None:
        self.url, self.headers, self.expect_100_continue = b"", [], False
        self._part = Part.HEAD
        self._nbytes = self._body_nbytes = 0
        self._begun_at = self.loop.time()

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._part is Part.BODY:
            return  # fields behind a body are for nobody, and there may be any number of them
        name = name.lower()
        if name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = self.parser.get_http_version() != "1.0"  # RFC 9110, section 10.1.1
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        parser = self.parser
        method, version, upgrade = parser.get_method(), parser.get_http_version(), bool(parser.should_upgrade())
        fault = fault_of(method, self.url, version, self.headers, upgrade=upgrade, waiting=len(self.pipeline))
        if fault is not None or self._leaving or self.transport.is_closing():
            self._rejection = fault or NO_HTTP
            raise HttpParserError  # which ends the parsing
        self._deadline.clear()
        self._deaf = self._deaf or upgrade
        scope = scope_of(method, self.url, version, self.headers)
        scope.update(server=self.server, client=self.client, scheme=self.scheme)
        keep_alive = version != "1.0" and parser.should_keep_alive() and not (upgrade or self.state.is_leaving)
        self.cycle = answer = Answer(self, scope, keep_alive=keep_alive, expects_100=self.expect_100_continue)
        self._part = Part.BODY
        if self._answer is None:
            self._start(answer)
        else:
            self.flow.pause_reading()
            self.pipeline.append(answer)

    def on_body(self, body: bytes) -> None:
        self._body_nbytes += len(body)
        self._chunks.append(body)

    def _hand_on(self) -> None:
        """Gives the application what has come of the body: all at once, however small the chunks are."""
        answer = self.cycle
        if self._chunks and not answer.response_complete:
            answer.received += b"".join(self._chunks)
            if len(answer.received) > HIGH_WATER_LIMIT:
                self.flow.pause_reading()
            answer.message_event.set()
        self._chunks.clear()

    def on_message_complete(self) -> None:
        self._hand_on()
        if not self.cycle.response_complete:
            self.cycle.more_body = False
            self.cycle.message_event.set()
        self._part = Part.WHOLE
        self._deadline.clear()
        if self._leaving and self._is_answered():
            self.hang_up()

    def leave_after_this(self) -> None:
        self._leaving = True

    def _start(self, answer: Answer) -> None:
        self._answer = answer
        # By no factory of the loop's: such a one watches over tasks, which this one does itself, and takes as long.
        self.tasks.add(asyncio.Task(answer.run(self.app), loop=self.loop, context=self.state.new_context()))

    def call_is_over(self, answer: Answer) -> None:
        self.tasks.discard(asyncio.current_task())  # where it goes on `streams_on` counts it
        if answer.is_left_open:
            answer.scope = {}
            if answer is self.cycle and self._part is Part.WHOLE:
                self.headers, self.url = [], b""
                self.parser = None  # type: ignore[assignment]  # until more comes in

    def on_response_complete(self) -> None:
        self._answer = None
        self.state.total_requests += 1
        self.quiet_since = self.loop.time()
        self.state.changed.set()
        if not self.transport.is_closing():
            self.flow.resume_reading()
            if self.pipeline:
                self._start(self.pipeline.pop(0))
            elif self._part is Part.HEAD:
                self._watch_request()  # the next one has begun
            else:
                self._is_kept = True
                self._deadline.set(self.quiet_since + self.timeout_keep_alive, self.hang_up)
        if self._leaving and self._is_answered():
            self._take_leave()

    def _take_leave(self) -> None:
        """Closes once the last answer is complete, or when no more can be made of it."""
        if self.transport.is_closing():
            return
        self.transport.write(self._last_words)
        self._deadline.clear()
        if self._part is Part.BODY and not self._deaf:
            self._is_kept = False
            self._deadline.set(self.loop.time() + LINGER_S, self.hang_up)
        else:
            self._close(GOODBYE_WITHIN_S)

    # -- what is wrong with them -------------------------------------------------------------------------------------

    def _turn_away(self, rejection: Rejection) -> None:
        if self._leaving and self._part is not Part.BODY:
            self._deaf = True  # this would be a request behind the last one that is answered here
        else:
            self._refuse(rejection)

    def _refuse(self, rejection: Rejection) -> None:
        """Answers the request that comes in in the application's place, after those before it, and closes. If the
        application has begun to answer it, it hears that nobody listens any more.
        """
        self.state.refused += 1
        self._deadline.clear()
        self._deaf = self._leaving = True
        if self._part is not Part.BODY or self._give_up():
            self._last_words = rejection.encode()
        if self._answer is None or self._answer.disconnected:
            self._take_leave()

    def _give_up(self) -> bool:
        """Forgets the request whose body comes in. Whether nothing of an answer to it has gone out."""
        if self.pipeline:
            self.pipeline.pop()
            return True
        self._disconnect_requests()
        return self.cycle.is_unheard

    def _watch_request(self) -> None:
        """Sets a time for what the client owes: the rest of a request, or its first byte."""
        if self._part is not Part.BODY and not self._is_answered():
            self._deadline.clear()  # it owes nothing
        elif not self._deadline.is_set:
            within_s = BODY_WITHIN_S if self._part is Part.BODY else HEAD_WITHIN_S
            self._deadline.set(self.loop.time() + within_s, self._request_overdue)

    def _request_overdue(self) -> None:
        if self.flow.read_paused:
            self._watch_request()  # it is the application that does not read
        elif self.is_idle:
            self.hang_up()
        else:
            self._refuse(OVERDUE)

    def pause_writing(self) -> None:
        super().pause_writing()
        if (body := self._answer and self._answer.body) and body.on_full:
            body.on_full()

    def resume_writing(self) -> None:
        super().resume_writing()
        if (body := self._answer and self._answer.body) and body.on_room:
            body.on_room()
