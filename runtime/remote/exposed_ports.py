"""What a graph shows to remote clients: its ports with their fields and types, as the welcome carries them."""

from __future__ import annotations

from typing import Any

from ..actor.fields import CallFields
from ..dataplane.callable_ports import answered_by_a_stream
from ..errors import ProtocolError, UnknownPort
from ..graph.compiled import Routing
from ..spec import FieldSpec, HandlerSpec, TypeSpec
from ..spelling import did_you_mean

_TYPE_KINDS = ("any", "none", "bool", "int", "float", "str", "bytes", "list", "dict", "tensor")


def described_ports(routing: Routing) -> list[dict[str, Any]]:
    """The exposed ports of a graph, in order of exposure, as plain data."""
    spec = routing.spec
    described = []
    for number, route in enumerate(spec.routes[: spec.exposed]):
        entry = routing.entry(number)
        answer = spec.actor(route.reply.actor).output_type(route.reply.port)
        described.append(
            {
                "port": str(route.entry),
                "summary": entry.summary,
                "stream": routing.streams(number),
                "fields": [_described_field(each) for each in entry.fields],
                "answer": _plain_type(answer),
            }
        )
    return described


def _described_field(field: FieldSpec) -> dict[str, Any]:
    described = {"name": field.name, "required": field.required, "type": _plain_type(field.type)}
    return {**described, "stream": True} if field.stream else described


def _plain_type(spec: TypeSpec) -> dict[str, Any]:
    dims = None if spec.dims is None else list(spec.dims)
    return {"kind": spec.kind, "text": spec.text, "dtypes": list(spec.dtypes), "dims": dims, "optional": spec.optional}


class ExposedPorts:
    """The ports of a remote graph: what a call is checked against before anything is sent.

    Built from what the gateway says, which may be anything: raises ProtocolError. `graph` is its name, "" before it has
    said anything. `takes_streams`: the gateway takes streams that calls send.
    """

    def __init__(self, graph: str, described: Any, *, takes_streams: bool = False) -> None:
        self.graph = graph
        self.takes_streams = takes_streams
        self._intakes: dict[str, CallFields] = {}
        self._streams: set[str] = set()
        try:
            for each in described:
                self._add(each)
        except (TypeError, KeyError, ValueError, AttributeError) as error:
            raise ProtocolError(f"the gateway describes its ports wrongly: {type(error).__name__}: {error}") from None

    def _add(self, described: dict[str, Any]) -> None:
        target = str(described["port"])
        owner, _, port = target.rpartition(".")
        fields = tuple(map(_field, described["fields"]))
        spec = HandlerSpec(port, "plain", fields, _type(described["answer"]), summary=str(described["summary"]))
        self._intakes[target] = CallFields(spec, owner)
        if described["stream"]:
            self._streams.add(target)

    @property
    def names(self) -> list[str]:
        return list(self._intakes)

    def fields(self, target: str, args: tuple[Any, ...], named: dict[str, Any], *, stream: bool) -> dict[str, Any]:
        """The fields of a call's message. Raises UnknownPort or MessageError, in the words that a local client uses."""
        intake = self._intakes.get(target)
        if intake is None:
            hint = did_you_mean(target, self._intakes)
            known = ", ".join(self._intakes) or "none"
            raise UnknownPort(
                f"graph {self.graph!r} has no port {target!r} that can be called{hint}; there are: {known}"
            )
        if target in self._streams and not stream:
            raise answered_by_a_stream(target)
        return intake.fields(args, named)

    def sent_stream(self, target: str) -> str | None:
        """The field of a port that is a stream, which the caller sends."""
        intake = self._intakes.get(target)
        return intake.stream if intake is not None else None


def _field(plain: dict[str, Any]) -> FieldSpec:
    return FieldSpec(
        str(plain["name"]), _type(plain["type"]), bool(plain["required"]), plain.get("stream", False) is True
    )


def _type(plain: dict[str, Any]) -> TypeSpec:
    if plain["kind"] not in _TYPE_KINDS:
        raise ValueError(f"there is no type of kind {plain['kind']!r}")
    dims = None if plain["dims"] is None else tuple(map(str, plain["dims"]))
    return TypeSpec(plain["kind"], str(plain["text"]), tuple(map(str, plain["dtypes"])), dims, bool(plain["optional"]))
