"""Which replica of an actor gets a message: the least loaded, the next in turn, or the one that a field's hash names.

No I/O. A hash says the same in every process, of every run, on every machine.
"""

from __future__ import annotations

import inspect
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from typing import Any, Protocol, TypeVar

import numpy as np

from ..errors import MessageError
from ..spec import ActorSpec, HandlerSpec
from ..spelling import did_you_mean

LEAST_LOADED, ROUND_ROBIN, HASH = "least_loaded", "round_robin", "hash"
_FORMS = (LEAST_LOADED, ROUND_ROBIN, f"{HASH}:field")
# Of these kinds of fields a value can be a key; "any" is looked at when it comes.
_KEY_KINDS = ("any", "none", "bool", "int", "float", "str", "bytes")


@dataclass(frozen=True)
class Policy:
    """What `graph.add(..., routing=...)` asks for: LEAST_LOADED, ROUND_ROBIN or HASH; `field` is that of a hash."""

    kind: str
    field: str = ""


@lru_cache(maxsize=256)
def policy_of(routing: str) -> Policy:
    """Raises ValueError, which says what may be written, for what is none."""
    kind, _, field = routing.partition(":")
    if kind == HASH and field.isidentifier():
        return Policy(HASH, field)
    if routing in (LEAST_LOADED, ROUND_ROBIN):
        return Policy(routing)
    hint = did_you_mean(routing, _FORMS[:2]) if kind != HASH else '; name the field, as in routing="hash:user"'
    raise ValueError(f"routing={routing!r} must be one of {', '.join(_FORMS)}{hint}")


# -- what a hash names -----------------------------------------------------------------------------------------------


def replica_of(key: bytes, replicas: int) -> int:
    """A replica's number. Of one more replica each of the others keeps all its keys but those that the new one gets.

    Lamping and Veach, A Fast, Minimal Memory, Consistent Hash Algorithm, 2014.
    """
    state = int.from_bytes(blake2b(key, digest_size=8).digest(), "little")
    chosen, following = -1, 0
    while following < replicas:
        chosen = following
        state = (state * 2862933555777941757 + 1) & 0xFFFF_FFFF_FFFF_FFFF
        following = int((chosen + 1) * ((1 << 31) / ((state >> 33) + 1)))
    return chosen


def key_of(value: Any, what: str) -> bytes:
    """What is hashed of a field's value; values that are equal give the same. `what` names the field in the error.

    Raises MessageError for what is no key.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if value is None:
        return b"n"
    if isinstance(value, str):
        return b"s" + value.encode("utf-8", "surrogatepass")
    if isinstance(value, (bytes, bytearray, memoryview)):
        return b"b" + bytes(value)
    if isinstance(value, float) and not value.is_integer():
        return b"f" + struct.pack("<d", value)
    if isinstance(value, (int, float)):  # True is 1 is 1.0
        return b"i%d" % int(value)
    raise MessageError(
        f"{what} chooses the replica, so it must be a str, int, bytes, bool, float or None, not {type(value).__name__}"
    )


class HashChoice:
    """Finds the replica for messages to one port, by the hash of a field."""

    def __init__(self, actor: str, handler: HandlerSpec, field: str, replicas: int) -> None:
        self.what = f"{actor}.{handler.port}: field '{field}'"
        self._field = field
        self._is_only = len(handler.fields) == 1
        self._replicas = replicas

    def of_fields(self, fields: dict[str, Any]) -> int:
        """For a call, by its fields; one that is left to its default, which is None, is None."""
        return replica_of(key_of(fields.get(self._field), self.what), self._replicas)

    def of_value(self, value: Any) -> int:
        """For what comes along an edge: the value of the only field, or a dict of them."""
        if not self._is_only:  # what is no dict is refused where it arrives
            value = value.get(self._field) if isinstance(value, dict) else None
        return replica_of(key_of(value, self.what), self._replicas)


# -- what the senders' own lanes name --------------------------------------------------------------------------------


class Lane(Protocol):
    """A way to a replica: `waiting` messages lie in it."""

    @property
    def waiting(self) -> int: ...


L = TypeVar("L", bound=Lane)


class Choice:
    """One sender's choice among its lanes to the replicas of one actor, where no hash makes it."""

    def __init__(self, policy: Policy) -> None:
        self._in_turn = policy.kind == ROUND_ROBIN
        self._next = 0

    def pick(self, lanes: Sequence[L], has_room: Callable[[L], bool]) -> L:
        """The lane for the next message. In turn those that are full are passed over, unless all are."""
        start = self._next % len(lanes)
        turned = [*lanes[start:], *lanes[:start]]
        if self._in_turn:
            return next(filter(has_room, turned), turned[0])
        return min(turned, key=lambda each: (not has_room(each), each.waiting))

    def went(self, lanes: Sequence[L], lane: L) -> None:
        """A message went by a lane: next comes the turn of the one behind it."""
        self._next = lanes.index(lane) + 1


# -- what may be asked for -------------------------------------------------------------------------------------------


def routing_problems(actor: ActorSpec, code: Any) -> list[str]:
    """What cannot be meant, a sentence each. `code` is the actor's class or function."""
    name, routing = actor.name, actor.routing
    try:
        policy = policy_of(routing) if isinstance(routing, str) else policy_of(repr(routing))
    except ValueError as error:
        return [f"actor '{name}': {error}"]
    if policy.kind != HASH:
        return []
    found = (_field_problem(handler, policy.field, getattr(code, handler.port, code)) for handler in actor.handlers)
    return [f"actor '{name}': routing={routing!r}, but {name}.{problem}" for problem in found if problem]


def _field_problem(handler: HandlerSpec, name: str, function: Any) -> str | None:
    names = [each.name for each in handler.fields]
    field = next((each for each in handler.fields if each.name == name), None)
    if field is None:
        listed = ", ".join(names) or "none"
        remedy = "every handler of the actor needs the field, or mark it @private"
        return f"{handler.port} takes no field '{name}'{did_you_mean(name, names)}; its fields are {listed}; {remedy}"
    if field.stream or field.type.kind not in _KEY_KINDS:
        text = f"{'a stream of ' * field.stream}{field.type.text}"
        return f"{handler.port} takes {name}: {text}; a key is a str, int, bytes, bool, float or None"
    default = inspect.signature(function).parameters[name].default
    if default is not None and default is not inspect.Parameter.empty:
        return f"{handler.port} has the default {name}={default!r}, which senders do not know; give it none, or None"
    return None
