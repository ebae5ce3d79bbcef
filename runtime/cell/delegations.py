"""Requests that the handlers of one actor instance hand on. The record that does it is the decision: who finds it there
runs the handler no more. Its caller is told where the request lies, and answered from there.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any, cast

from ...shm.bell import now_ns
from ...shm.producer import Producer
from ..actor.delegation import Delegation
from ..actor.fields import fields_of
from ..control.channel import OpenRouteFor
from ..dataplane.caller import Caller
from ..dataplane.endpoint import Endpoint
from ..errors import DeadlineExceeded, MessageError, TooManyHops
from ..graph.compiled import Routing
from ..message.capacities import MOST_REMEMBERED, Key
from ..message.delegated import MOST_HOPS, ReportTo, Whereabouts, with_hops
from ..message.header import Flag, Header, Kind, with_key
from ..message.payload import Payload, wire_form
from ..telemetry.stats import CellStats
from .input_states import FINISHED, STOPPING
from .reply_lanes import ReplyLanes
from .reports import Reports
from .work import DELEGATE_KEY, MOVED_WAY, REPLY_KEY, Dispatch, Work, current


@dataclass(slots=True)
class _Onward(Dispatch):
    """A request on its way to the entry of a route, by the first of `lanes` that has room."""

    target: str = ""
    route: int = 0
    lanes: list[Producer] = field(default_factory=list)


class Delegations:
    """A way out of the outlets, as `ReplyLanes` is. `caller` is that of the worker, whose lanes to entries it shares.
    One thread.
    """

    def __init__(
        self,
        actor: str,
        routing: Routing,
        endpoint: Endpoint,
        caller: Caller,
        replies: ReplyLanes,
        reports: Reports,
        stats: CellStats,
    ) -> None:
        self._actor = actor
        self._routing = routing
        self._endpoint = endpoint
        self._caller = caller
        self._replies = replies
        self._reports = reports
        self._stats = stats
        self._opened: set[tuple[int, int]] = set()  # routes, each with the caller for whom it was opened
        # Where requests went, and the port there: a cancel may come here still, or from a client that has gone since.
        self._onward: OrderedDict[Key, tuple[Producer, int]] = OrderedDict()

    # -- the verb ----------------------------------------------------------------------------------------------------

    def made(self, target: str, args: tuple[Any, ...], fields: dict[str, Any], report: ReportTo | None) -> Delegation:
        """What a handler is to return. Raises UnknownPort, MessageError or TooManyHops."""
        _, route, message, _ = self._caller.checked(target, args, fields, stream=True)
        if (stream := self._routing.entry(route).sent_stream) is not None:
            raise MessageError(
                f"{target} takes a stream in '{stream.name}', which only a call can send: no request is handed on to "
                "it; use self.call or self.stream"
            )
        made = Delegation(target, route, message, report)
        work = current.get()
        if work is not None and work.state is not FINISHED:
            self._check(work, made)
        return made

    def report_to(self, instance: str, port: str, about: Any, nbytes: int) -> ReportTo:
        """A port of this actor as the goal of a report. Raises UnknownPort, and MessageError where it takes none."""
        if isinstance(nbytes, bool) or not isinstance(nbytes, int) or nbytes < 0:
            raise MessageError(f"report_nbytes is {nbytes!r}; it must be a whole number of bytes")
        route = self._routing.route(f"{self._actor}.{port}", inside=True)
        fields_of(self._routing.entry(route), self._actor, (), {"about": about, "report": {"kept": False}})
        return ReportTo(route, self._routing.instances[self._actor].index(instance), about, nbytes)

    def _check(self, work: Work, delegation: Delegation) -> None:
        """Whether this input may be handed on. Raises MessageError or TooManyHops."""
        header, target = work.header, delegation.target
        here = f"{self._actor}.{work.handler.spec.port}" if work.handler is not None else self._actor
        if not header.reply_to or not header.flags & Flag.FIELDS:
            raise MessageError(
                f"{here} cannot hand this on to {target}: it came along an edge, or nobody waits for its answer; emit "
                "it along an edge to there"
            )
        ours, theirs = self._routing.streams(header.route), self._routing.streams(delegation.route)
        if ours != theirs:
            raise MessageError(
                f"{here} answers with {_form(streams=ours)} and {target} with {_form(streams=theirs)}; a request is "
                "handed on to a port that answers in the same form"
            )
        if delegation.report is not None and not self._answers_itself(delegation.route):
            raise MessageError(f"{target} passes on what it gets, and another port answers: it can give no report")
        if work.hops >= MOST_HOPS:
            raise TooManyHops(
                f"{here} hands on to {target} what was handed on {MOST_HOPS} times already; do actors hand it on in a "
                "circle?"
            )

    def _answers_itself(self, route: int) -> bool:
        spec = self._routing.spec.routes[route]
        return spec.reply == spec.entry

    # -- what a handler has returned ---------------------------------------------------------------------------------

    def give(self, work: Work, delegation: Delegation) -> None:
        """Puts a request into the outbox that its handler hands on; not one that nobody waits for any more."""
        self._check(work, delegation)
        header, route = work.header, delegation.route
        if work.state is STOPPING or not self._replies.knows(header.reply_to):
            return
        if (route, header.reply_to) not in self._opened:
            self._endpoint.ask(OpenRouteFor(route, header.reply_to))
            self._opened.add((route, header.reply_to))
        lanes = self._caller.entries.candidates(route, delegation.fields)
        if not self._answers_itself(route):
            self._reports.lost(work)
        reports = work.reports if delegation.report is None else (*work.reports, delegation.report)
        fields, flags = with_hops(delegation.fields, work.hops + 1, reports), Flag.DELEGATED
        if work.key:
            fields, flags = with_key(fields, work.key), flags | Flag.KEYED
        payload = Payload(fields, self._endpoint.pool, is_fields=True)
        onward = _Onward(payload, Kind.DATA, flags, 0, DELEGATE_KEY, work.ordinal, deadline_ns=header.deadline_ns)
        onward.target, onward.route, onward.lanes = delegation.target, route, lanes
        work.outbox.append(onward)
        work.ordinal += 1

    def send(self, work: Work, dispatch: Dispatch) -> bool:
        """Hands a request on, then tells its caller; False if it must wait for room, until its deadline at most."""
        onward = cast(_Onward, dispatch)
        lane = self._open_lane(onward)
        if lane is None:
            if not onward.deadline_ns or now_ns() < onward.deadline_ns:
                return False
            self._expire(work, onward)
            return True
        port = self._routing.number[self._routing.spec.routes[onward.route].entry]
        head = list(work.head(0, port, onward.ordinal, onward.deadline_ns))
        head[_ROUTE] = onward.route
        onward.payload.publish(lane, onward.kind, onward.flags, tuple(head))
        self._stats.count_sent()
        self._went(work, onward.route, onward.ordinal, lane, port)
        return True

    def could_go(self, _: Header, dispatch: Dispatch) -> bool:
        """Whether `send` would get rid of it now."""
        return self._open_lane(cast(_Onward, dispatch)) is not None

    def _open_lane(self, onward: _Onward) -> Producer | None:
        """Room for the cancels of this worker's own calls is left in each lane."""
        can_go, can_spare = onward.payload.can_go, self._caller.can_spare
        return next((lane for lane in onward.lanes if can_spare(lane) and can_go(lane)), None)

    def _expire(self, work: Work, onward: _Onward) -> None:
        error = DeadlineExceeded(f"{onward.target} had no room for what was handed on to it until the deadline")
        self._stats.count("expired")
        # Answered at once, past the outbox, at whose front the request still stands.
        payload = Payload(wire_form(error), self._endpoint.pool)
        self._replies.send(work, Dispatch(payload, Kind.ERROR, 0, 0, REPLY_KEY, onward.ordinal))
        self._reports.failed(work, error)

    # -- where it went -----------------------------------------------------------------------------------------------

    def _went(self, work: Work, route: int, ordinal: int, lane: Producer, port: int) -> None:
        """Remembers where a request went, and tells its caller. Reports are the affair of who has it now."""
        work.reports = ()
        self._onward[work.header.key] = lane, port
        if len(self._onward) > MOST_REMEMBERED:
            self._onward.popitem(last=False)
        if work.hops and not self._replies.has_plenty(work.header.reply_to):
            return  # its caller knows of another place, from where a cancel is sent on
        instance = next(name for name, each in self._caller.entries.lanes.items() if each is lane)
        replica = self._routing.instances[self._routing.actor_of[instance]].index(instance)
        payload = Payload(list(Whereabouts(route, replica, work.hops + 1)), self._endpoint.pool)
        due_ns = work.header.deadline_ns
        work.outbox.append(Dispatch(payload, Kind.MOVED, 0, 0, REPLY_KEY, ordinal, MOVED_WAY, deadline_ns=due_ns))

    def tell_again(self, work: Work) -> None:
        """A predecessor has handed this input on, and may not have told its caller. What it had done counts."""
        work.value, work.reports = None, ()
        if work.published is not None and work.published.delegated is not None:
            route, work.ordinal, lane = work.published.delegated
            port = self._routing.number[self._routing.spec.routes[route].entry]
            self._went(work, route, work.ordinal, lane, port)
            work.ordinal += 1

    def taken_from(self, key: Key) -> tuple[Producer, int] | None:
        """The lane by which a request was handed on, and the number of the port at its end: for its cancel."""
        return self._onward.pop(key, None)

    def forget_caller(self, endpoint: int) -> None:
        """A caller is gone."""
        self._opened = {each for each in self._opened if each[1] != endpoint}

    def lanes(self) -> list[tuple[int, Producer]]:
        """The lanes in which what was handed on may lie, each with the name of this way."""
        return [(DELEGATE_KEY, lane) for lane in self._caller.entries.lanes.values()]


# Of the numbers that `Work.head` gives.
_ROUTE = Header._fields.index("route") - Header._fields.index("source")


def _form(*, streams: bool) -> str:
    return "a stream" if streams else "one value"
