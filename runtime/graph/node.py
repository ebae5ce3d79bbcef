"""An actor of a graph while the graph is being written, and the handles of its ports."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from ..actor.actor import Actor, ports_of
from ..actor.handler import summary_of
from ..actor.user_code import code_spec
from ..errors import GraphError
from ..spec import ActorSpec, CodeSpec, PortRef
from ..spelling import did_you_mean

Code = type[Actor] | Callable[..., Any]

# One that begins with a dash would be an option to each command that it is given to.
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,39}")
NAME_RULE = "letters, digits, - and _, at most 40 of them, no - in front"
RESERVED_NAMES = ("supervisor", "gateway")
RESTARTS = ("permanent", "transient", "temporary")


class Owner(Protocol):
    """The graph that a node or a group belongs to: itself, for there may be several of one name."""

    name: str


def setting_problems(spec: ActorSpec) -> list[str]:
    """What cannot be meant of an actor's place and life, a sentence each."""
    actor, wrong = spec.name, []
    least = {"replicas": 1, "cores": 0, "weight": 1, "max_attempts": 1, "memory_bytes": 1, "concurrency": 1, "calls": 1}
    for name, minimum in least.items():
        value = getattr(spec, name)
        if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
            wrong.append(f"actor '{actor}': {name}={value!r} must be a whole number of at least {minimum}")
    for name in ("hang_after_s", "start_timeout_s"):
        value = getattr(spec, name)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
            wrong.append(f"actor '{actor}': {name}={value!r} must be a number of seconds above 0")
    if spec.restart not in RESTARTS:
        hint = did_you_mean(str(spec.restart), RESTARTS)
        wrong.append(f"actor '{actor}': restart={spec.restart!r} must be one of {', '.join(RESTARTS)}{hint}")
    if not isinstance(spec.huge_pages, bool):
        wrong.append(f"actor '{actor}': huge_pages={spec.huge_pages!r} must be True or False")
    if spec.worker is not None and not (isinstance(spec.worker, str) and NAME.fullmatch(spec.worker)):
        wrong.append(f"actor '{actor}': worker={spec.worker!r} must be a name of {NAME_RULE}")
    elif spec.worker in RESERVED_NAMES:
        wrong.append(f"actor '{actor}': worker={spec.worker!r} is a process of slabwire's own; choose another")
    return wrong


@dataclass(frozen=True)
class ActorDraft:
    """One actor as it was added. How its code travels is not in its `spec` until the graph is validated."""

    graph: Owner
    code: Code
    arguments: dict[str, Any]
    spec: ActorSpec

    def travelling(self) -> ActorSpec:
        """The spec for a worker. Raises GraphError where code or an argument cannot travel there."""
        return replace(self.spec, code=code_spec(self.code, self.arguments, self.spec.name))

    @property
    def inputs(self) -> list[str]:
        return [each.port for each in self.spec.handlers]

    @property
    def leaving(self) -> list[str]:
        """Output ports: results of handlers first, then the declared ones."""
        results = [each.port for each in self.spec.handlers if each.replies]
        return [*results, *(each.port for each in self.spec.outputs)]


@dataclass(frozen=True)
class Port:
    """A handle of one port, `node.port`; what `connect` and `expose` take."""

    draft: ActorDraft = field(repr=False)
    ref: PortRef

    def __str__(self) -> str:
        return str(self.ref)


class Node:
    """An actor in a graph. Its attributes are its ports."""

    __slots__ = ("_draft",)  # nothing public: any name may be a port's

    def __init__(self, draft: ActorDraft) -> None:
        self._draft = draft

    def __getattr__(self, name: str) -> Port:
        ports = self.__dir__()
        if name in ports:
            return Port(self._draft, PortRef(str(self), name))
        if name.startswith("__"):  # copy, inspect and others probe for these
            raise AttributeError(name)
        hint = did_you_mean(name, ports) or f"; it has {', '.join(ports) or 'none'}"
        raise UnknownPortName(f"actor '{self}' has no port '{name}'{hint}")

    def __dir__(self) -> list[str]:
        return self._draft.spec.ports()

    def __str__(self) -> str:
        return self._draft.spec.name

    def __repr__(self) -> str:
        return f"Node({self}: {', '.join(dir(self))})"


class UnknownPortName(GraphError, AttributeError):
    """A port that an actor does not have, asked for as an attribute of its node."""


def draft_of(
    graph: Owner, code: Code, name: str | None, settings: dict[str, Any], arguments: dict[str, Any]
) -> ActorDraft:
    """Checks what `graph.add` was given as far as it can be checked at once. `settings` are fields of `ActorSpec`.
    Raises GraphError.
    """
    is_class = isinstance(code, type) and issubclass(code, Actor) and code is not Actor
    if not is_class and not inspect.isfunction(code):
        raise GraphError(f"graph.add takes a class derived from slabwire.Actor or a function, not {code!r}")
    name = _checked_name(code, name)
    check_arguments(name, code, arguments, settings)
    handlers, outputs = ports_of(code)
    if not handlers and not outputs:  # a source has outputs alone
        raise GraphError(f"actor '{name}': {code.__name__} has no handler; give it a public method")
    if settings["concurrency"] is None:
        are_all_plain = all(each.kind == "plain" and each.batch is None for each in handlers)
        settings = {**settings, "concurrency": 1 if are_all_plain else 64}
    here = CodeSpec("module", code.__module__, code.__qualname__)
    spec = ActorSpec(name, here, handlers, outputs, **settings, summary=summary_of(code))
    return ActorDraft(graph, code, arguments, spec)


def _checked_name(code: Code, name: str | None) -> str:
    if name is None:
        if not code.__name__.isidentifier():
            raise GraphError('a lambda has no name of its own: graph.add(..., name="...")')
        name = code.__name__.lower()
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise GraphError(f"actor name {name!r} must consist of {NAME_RULE}; give another with name=")
    if name in RESERVED_NAMES:
        raise GraphError(f"actor name {name!r} is that of a process of slabwire's own; give another with name=")
    return name


def _signature(code: type) -> inspect.Signature:
    try:
        return inspect.signature(code, eval_str=True)  # `path: str`, not `path: 'str'`
    except Exception:  # an annotation that cannot be resolved here
        return inspect.signature(code)


def check_arguments(name: str, code: Code, arguments: dict[str, Any], settings: dict[str, Any]) -> None:
    """Raises GraphError where `arguments` are not what the constructor takes.

    A class that knows more of them says so by a class method `__check__`, which takes what the constructor takes, and
    where it has a parameter of that name the `settings` of graph.add.
    """
    if not isinstance(code, type):
        if arguments:
            raise GraphError(
                f"actor '{name}': a function takes no arguments from graph.add, got {', '.join(arguments)}"
            )
        return
    signature = _signature(code)
    parameters = signature.parameters
    taken = [each for each in ("name", *settings) if each in parameters]
    if taken:
        raise GraphError(
            f"actor '{name}': the constructor of {code.__name__} has a parameter '{taken[0]}', "
            f"which graph.add keeps for itself; rename it"
        )
    takes = f"its constructor takes {signature.replace(return_annotation=inspect.Signature.empty)}"
    takes_any = any(each.kind is each.VAR_KEYWORD for each in parameters.values())
    for each in arguments:
        if each not in parameters and not takes_any:
            hint = did_you_mean(each, parameters)
            raise GraphError(f"actor '{name}' ({code.__name__}): there is no argument '{each}'{hint}; {takes}")
    try:
        signature.bind(**arguments)
    except TypeError as error:
        raise GraphError(f"actor '{name}' ({code.__name__}): {error}; {takes}") from None
    check = getattr(code, "__check__", None)
    if check is not None:
        told = {"settings": settings} if "settings" in inspect.signature(check).parameters else {}
        try:
            check(**arguments, **told)
        except GraphError as error:
            raise GraphError(*(f"actor '{name}': {each}" for each in error.problems)) from None
