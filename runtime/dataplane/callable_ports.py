"""The ports that one process may call, and what each takes: a call is checked here before it is begun."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..actor.fields import CallFields
from ..errors import MessageError
from ..graph.compiled import Routing

# A call that was checked: its port by name, by the number of its route, the fields of its message, and which of these
# is to be sent as a stream (None: no field).
Request = tuple[str, int, dict[str, Any], str | None]


class CallablePorts:
    """For actors (`inside`) all ports of the graph, for clients those that are exposed. `check_source(port, field,
    value)` raises MessageError for what the caller cannot send as a stream.
    """

    def __init__(self, routing: Routing, check_source: Callable[[str, str, Any], None], *, inside: bool) -> None:
        self._routing = routing
        self._check_source = check_source
        self._inside = inside
        self._known: dict[str, tuple[int, CallFields, bool]] = {}  # by target: its route, what it takes, if it streams

    def checked(self, target: str, args: tuple[Any, ...], fields: dict[str, Any], *, stream: bool) -> Request:
        """A call, checked against the port before it is begun. Raises UnknownPort or MessageError."""
        port = self._known.get(target)
        if port is None:
            route = self._routing.route(target, inside=self._inside)
            port = self._known[target] = route, *self._routing.intake(route)
        route, intake, streams = port
        if streams and not stream:
            raise answered_by_a_stream(target)
        message = intake.fields(args, fields)
        if intake.stream is not None:
            self._check_source(target, intake.stream, message[intake.stream])
        return target, route, message, intake.stream

    def sent_stream(self, target: str) -> str | None:
        """The field of a port that is a stream, where calls of it were checked."""
        known = self._known.get(target)
        return known[1].stream if known is not None else None


def answered_by_a_stream(target: str) -> MessageError:
    """The error of a call where a stream must be begun."""
    return MessageError(f"{target} answers with a stream; use stream({target!r}, ...) in place of call")
