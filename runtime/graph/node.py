"""An actor of a graph while the graph is being written, and the handles of its ports."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from ..actor.actor import Actor, ports_of
from ..actor.handler import summary_of
from ..actor.user_code import code_spec
from ..errors import GraphError
from ..spec import ActorSpec, CodeSpec, HandlerSpec, OutputSpec, PortRef, Restart, TypeSpec
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


@dataclass(frozen=True)
class Settings:
    """What `graph.add` was told about an actor's place and life."""

    replicas: int
    routing: str
    cores: int
    weight: int
    restart: Restart
    worker: str | None
    concurrency: int | None
    hang_after_s: float
    start_timeout_s: float
    max_attempts: int
    memory_bytes: int
    huge_pages: bool

    def problems(self, actor: str) -> list[str]:
        """What cannot be meant, a sentence each."""
        least = {"replicas": 1, "cores": 0, "weight": 1, "max_attempts": 1, "memory_bytes": 1, "concurrency": 1}
        settings = {name: getattr(self, name) for name in least}
        wrong = [
            f"actor '{actor}': {name}={value!r} must be a whole number of at least {least[name]}"
            for name, value in settings.items()
            if not (name == "concurrency" and value is None) and not _is_whole(value, least[name])
        ]
        for name, value in (("hang_after_s", self.hang_after_s), ("start_timeout_s", self.start_timeout_s)):
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
                wrong.append(f"actor '{actor}': {name}={value!r} must be a number of seconds above 0")
        if self.restart not in RESTARTS:
            hint = did_you_mean(str(self.restart), RESTARTS)
            wrong.append(f"actor '{actor}': restart={self.restart!r} must be one of {', '.join(RESTARTS)}{hint}")
        if not isinstance(self.huge_pages, bool):
            wrong.append(f"actor '{actor}': huge_pages={self.huge_pages!r} must be True or False")
        if self.worker is not None and not (isinstance(self.worker, str) and NAME.fullmatch(self.worker)):
            wrong.append(f"actor '{actor}': worker={self.worker!r} must be a name of {NAME_RULE}")
        elif self.worker in RESERVED_NAMES:
            wrong.append(f"actor '{actor}': worker={self.worker!r} is a process of slabwire's own; choose another")
        return wrong


def _is_whole(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


@dataclass(frozen=True)
class ActorDraft:
    """One actor as it was added; becomes an `ActorSpec` when the graph is validated."""

    graph: Owner
    name: str
    code: Code
    arguments: dict[str, Any]
    settings: Settings
    handlers: tuple[HandlerSpec, ...]
    outputs: tuple[OutputSpec, ...]

    def spec(self, *, travels: bool = True) -> ActorSpec:
        """Raises GraphError where code or an argument cannot travel to a worker, if it has to."""
        settings = {**vars(self.settings), "concurrency": self.settings.concurrency or self._concurrency()}
        here = CodeSpec("module", self.code.__module__, self.code.__qualname__)
        code = code_spec(self.code, self.arguments, self.name) if travels else here
        summary = summary_of(self.code)
        return ActorSpec(self.name, code, self.handlers, self.outputs, **settings, summary=summary)

    def _concurrency(self) -> int:
        return 1 if all(each.kind == "plain" and each.batch is None for each in self.handlers) else 64

    @property
    def inputs(self) -> list[str]:
        return [each.port for each in self.handlers]

    @property
    def leaving(self) -> list[str]:
        """Output ports: results of handlers first, then the declared ones."""
        results = [each.port for each in self.handlers if each.replies]
        return [*results, *(each.port for each in self.outputs)]

    def handler(self, port: str) -> HandlerSpec:
        return next(each for each in self.handlers if each.port == port)

    def output_type(self, port: str) -> TypeSpec:
        declared = next((each.type for each in self.outputs if each.port == port), None)
        return declared if declared is not None else self.handler(port).result


@dataclass(frozen=True)
class Port:
    """A handle of one port, `node.port`; what `connect` and `expose` take."""

    plan: ActorDraft = field(repr=False)
    ref: PortRef

    def __str__(self) -> str:
        return str(self.ref)


class Node:
    """An actor in a graph. Its attributes are its ports."""

    __slots__ = ("_plan",)  # nothing public: any name may be a port's

    def __init__(self, plan: ActorDraft) -> None:
        self._plan = plan

    def __getattr__(self, name: str) -> Port:
        plan = self._plan
        ports = dict.fromkeys([*plan.inputs, *plan.leaving])
        if name in ports:
            return Port(plan, PortRef(plan.name, name))
        if name.startswith("__"):  # copy, inspect and others probe for these
            raise AttributeError(name)
        raise UnknownPortName(f"actor '{plan.name}' has no port '{name}'{_hint(name, ports)}")

    def __dir__(self) -> list[str]:
        return list(dict.fromkeys([*self._plan.inputs, *self._plan.leaving]))

    def __str__(self) -> str:
        return self._plan.name

    def __repr__(self) -> str:
        return f"Node({self._plan.name}: {', '.join(dir(self))})"


class UnknownPortName(GraphError, AttributeError):
    """A port that an actor does not have, asked for as an attribute of its node."""


def _hint(name: str, ports: dict[str, None]) -> str:
    return did_you_mean(name, ports) or f"; it has {', '.join(ports) or 'none'}"


def draft_of(graph: Owner, code: Code, name: str | None, settings: Settings, arguments: dict[str, Any]) -> ActorDraft:
    """Checks what `graph.add` was given as far as it can be checked at once. Raises GraphError."""
    is_class = isinstance(code, type) and issubclass(code, Actor) and code is not Actor
    if not is_class and not inspect.isfunction(code):
        raise GraphError(f"graph.add takes a class derived from slabwire.Actor or a function, not {code!r}")
    name = _checked_name(code, name)
    check_arguments(name, code, arguments, tuple(vars(settings)))
    handlers, outputs = ports_of(code)
    if not handlers and not outputs:  # a source has outputs alone
        raise GraphError(f"actor '{name}': {code.__name__} has no handler; give it a public method")
    return ActorDraft(graph, name, code, arguments, settings, handlers, outputs)


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


def check_arguments(name: str, code: Code, arguments: dict[str, Any], settings: tuple[str, ...]) -> None:
    """Raises GraphError where `arguments` are not what the constructor takes.

    A class that knows more of them says so by a class method `__check__`, which takes what the constructor takes.
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
        try:
            check(**arguments)
        except GraphError as error:
            raise GraphError(*(f"actor '{name}': {each}" for each in error.problems)) from None
