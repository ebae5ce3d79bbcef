"""A graph as plain data: what travels from the process that defines it to supervisor, workers and clients.

Everything here packs into msgpack by `to_plain` and comes back by `graph_from_plain`.
User code appears only as a `CodeSpec`; nothing in this file imports it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

WhenFull = Literal["block", "reject", "drop_newest", "drop_oldest"]
Restart = Literal["permanent", "transient", "temporary"]
Strategy = Literal["one_for_one", "rest_for_one", "one_for_all"]
HandlerKind = Literal["plain", "generator", "coroutine", "async_generator", "reply_stream"]
TypeKind = Literal["any", "none", "bool", "int", "float", "str", "bytes", "list", "dict", "tensor"]


# Calls and streams that a process may have in flight where the graph does not say how many, and the most that it may
# say: so the lanes of a caller stay below 32 MiB.
USUAL_CALLS, MOST_CALLS = 128, 1 << 14
# As many restarts of one worker that is in no group, within so many seconds, are the most.
INTENSITY = 10
WITHIN_S = 30.0


@dataclass(frozen=True)
class TypeSpec:
    """What a field or a port carries, as far as an annotation says it.

    For a tensor `dtypes` lists the names of the dtypes allowed (empty: any) and `dims` its axes as written
    ("h", "3", "*batch", "..."; None: any rank). A dataclass is a "dict"; its `keys` are known, as a TypedDict's are.
    `optional`: None may stand for it.
    """

    kind: TypeKind = "any"
    text: str = "Any"
    dtypes: tuple[str, ...] = ()
    dims: tuple[str, ...] | None = None
    optional: bool = False
    keys: tuple[str, ...] | None = None


@dataclass(frozen=True)
class FieldSpec:
    """One parameter of a handler: one field of the messages it takes. `stream`: its caller sends a stream of `type`."""

    name: str
    type: TypeSpec
    required: bool = True
    stream: bool = False


@dataclass(frozen=True)
class BatchSpec:
    """How inputs of a `@batched` handler are gathered: at most `max_size`, waiting at most `max_wait_s`."""

    max_size: int
    max_wait_s: float


@dataclass(frozen=True)
class HandlerSpec:
    """One input port with its handler.

    `result` is what one reply (for a stream: one item) carries. `replies` is False for a handler of an actor with
    declared outputs whose return annotation is None: nothing leaves by the port of its own name.
    """

    port: str
    kind: HandlerKind
    fields: tuple[FieldSpec, ...]
    result: TypeSpec
    replies: bool = True
    batch: BatchSpec | None = None
    resumable: bool = False
    summary: str = ""

    @property
    def streams(self) -> bool:
        return self.kind in ("generator", "async_generator", "reply_stream")

    @property
    def sent_stream(self) -> FieldSpec | None:
        """The field that is a stream which the caller sends, if there is one."""
        return next((each for each in self.fields if each.stream), None)


@dataclass(frozen=True)
class OutputSpec:
    """A declared output port."""

    port: str
    type: TypeSpec


@dataclass(frozen=True)
class CodeSpec:
    """How an actor's code reaches a worker.

    "module": `origin` is a module's name; "file": a path, imported under its stem; "value": `pickled` holds the object.
    `search_path` is put in front of sys.path (the folder of a script, or the directory it was started in).
    `arguments` holds the keyword arguments of the constructor: msgpack, or a pickle where `arguments_pickled`.
    """

    kind: Literal["module", "file", "value"]
    origin: str
    qualname: str
    search_path: tuple[str, ...] = ()
    pickled: bytes = b""
    arguments: bytes = b"\x80"
    arguments_pickled: bool = False


@dataclass(frozen=True)
class ActorSpec:
    """One actor of a graph, with all that `graph.add` was told."""

    name: str
    code: CodeSpec
    handlers: tuple[HandlerSpec, ...]
    outputs: tuple[OutputSpec, ...] = ()
    replicas: int = 1
    routing: str = "least_loaded"  # which replica gets a message: also "round_robin" or "hash:field"
    cores: int = 0  # whole cores it asks for; 0: a share of one
    weight: int = 1
    restart: Restart = "permanent"
    worker: str | None = None  # actors that name the same worker share its process
    concurrency: int = 64
    calls: int = USUAL_CALLS  # calls and streams that its own handlers may have in flight
    hang_after_s: float = 30.0
    start_timeout_s: float = 120.0
    max_attempts: int = 3
    memory_bytes: int = 1 << 30  # most that the slabs of its worker may grow to on its account
    huge_pages: bool = False  # whether the slabs of its worker ask for them
    summary: str = ""

    def instances(self) -> list[str]:
        """The names of its instances: its own, or `name[0]`, `name[1]`... where it has replicas."""
        return [self.name] if self.replicas == 1 else [f"{self.name}[{index}]" for index in range(self.replicas)]

    def ports(self) -> list[str]:
        """All its ports: those of its handlers, then the declared outputs."""
        return list(dict.fromkeys([*(each.port for each in self.handlers), *(each.port for each in self.outputs)]))

    def handler(self, port: str) -> HandlerSpec:
        """The handler of one of its input ports."""
        return next(each for each in self.handlers if each.port == port)

    def output_type(self, port: str) -> TypeSpec:
        """The type that leaves by an output port: a declared one's, else the result of the handler of that name."""
        declared = {each.port: each.type for each in self.outputs}
        return declared[port] if port in declared else self.handler(port).result


@dataclass(frozen=True)
class PortRef:
    """A port of an actor of the graph; prints as `actor.port`."""

    actor: str
    port: str

    def __str__(self) -> str:
        return f"{self.actor}.{self.port}"


@dataclass(frozen=True)
class EdgeSpec:
    """From an output port to an input port: how many messages may wait, and what happens to more."""

    source: PortRef
    target: PortRef
    capacity: int = 64
    when_full: WhenFull = "block"


@dataclass(frozen=True)
class RouteSpec:
    """An exposed port: calls enter at `entry` and are answered by what leaves at `reply`."""

    entry: PortRef
    reply: PortRef


@dataclass(frozen=True)
class GroupSpec:
    """Actors and groups (`members`, by name, in order) that are supervised together.

    `strategy` says who is restarted with a member that failed: nobody, those named after it, all. More than `intensity`
    restarts within `within_s` seconds are the failure of the group itself.
    """

    name: str
    members: tuple[str, ...]
    strategy: Strategy = "one_for_one"
    intensity: int = INTENSITY
    within_s: float = WITHIN_S


@dataclass(frozen=True)
class GraphSpec:
    """A whole, validated graph. `routes` holds the exposed ports first in order of exposure, then the others that can
    be called from inside (`exposed` says how many of them clients may use).
    """

    name: str
    actors: tuple[ActorSpec, ...]
    edges: tuple[EdgeSpec, ...] = ()
    routes: tuple[RouteSpec, ...] = ()
    exposed: int = 0
    groups: tuple[GroupSpec, ...] = ()
    client_calls: int = USUAL_CALLS  # calls and streams that one client may have in flight

    def actor(self, name: str) -> ActorSpec:
        return next(each for each in self.actors if each.name == name)

    def to_plain(self) -> dict[str, Any]:
        """Nested dicts, lists, str, int, float, bool, bytes and None: what msgpack packs."""
        return asdict(self)


def _type(plain: dict[str, Any]) -> TypeSpec:
    dims, keys = plain["dims"], plain["keys"]
    return TypeSpec(
        plain["kind"],
        plain["text"],
        tuple(plain["dtypes"]),
        None if dims is None else tuple(dims),
        plain["optional"],
        None if keys is None else tuple(keys),
    )


def _handler(plain: dict[str, Any]) -> HandlerSpec:
    fields = tuple(FieldSpec(**{**each, "type": _type(each["type"])}) for each in plain["fields"])
    batch = BatchSpec(**plain["batch"]) if plain["batch"] else None
    return HandlerSpec(**{**plain, "fields": fields, "result": _type(plain["result"]), "batch": batch})


def _actor(plain: dict[str, Any]) -> ActorSpec:
    code = CodeSpec(**{**plain["code"], "search_path": tuple(plain["code"]["search_path"])})
    handlers = tuple(_handler(each) for each in plain["handlers"])
    outputs = tuple(OutputSpec(each["port"], _type(each["type"])) for each in plain["outputs"])
    return ActorSpec(**{**plain, "code": code, "handlers": handlers, "outputs": outputs})


def graph_from_plain(plain: dict[str, Any]) -> GraphSpec:
    """The inverse of `GraphSpec.to_plain` (after msgpack, where tuples have become lists)."""
    edges = tuple(
        EdgeSpec(PortRef(**each["source"]), PortRef(**each["target"]), each["capacity"], each["when_full"])
        for each in plain["edges"]
    )
    routes = tuple(RouteSpec(PortRef(**each["entry"]), PortRef(**each["reply"])) for each in plain["routes"])
    actors = tuple(_actor(each) for each in plain["actors"])
    groups = tuple(GroupSpec(**{**each, "members": tuple(each["members"])}) for each in plain["groups"])
    return GraphSpec(plain["name"], actors, edges, routes, plain["exposed"], groups, plain["client_calls"])
