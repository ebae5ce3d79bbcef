"""What a user subclasses: an actor's ports, its handlers, and the verbs that they may use."""

from __future__ import annotations

import socket
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from types import FunctionType
from typing import Any, ClassVar, Generic, TypeVar

from numpy.typing import DTypeLike, NDArray

from ...shm.layout import Layout
from ..errors import GraphError, SlabwireError, UnknownPort
from ..spec import HandlerSpec, OutputSpec
from ..spelling import did_you_mean
from .annotations import type_of
from .binding import Binding, Shape
from .context import Context
from .delegation import REPORT_NBYTES
from .fields import fields_of
from .handler import Handler, batched, check_signature, is_private, private, resumable, specify, summary_of
from .kept import Kept
from .reply_stream import ReplyStream
from .stream_group import OnItems, StreamGroup

T = TypeVar("T")


class Output:
    """A further output port of an actor: `edges = Output(Float32[np.ndarray, "h w"])`, sent to with `self.emit`."""

    def __init__(self, annotation: Any = Any) -> None:
        self.annotation = annotation


class _PerClass(Generic[T]):
    """An attribute computed once for each class, on first use: by then forward references can be resolved."""

    def __init__(self, compute: Callable[[type[Actor]], T]) -> None:
        self.compute = compute

    def __set_name__(self, owner: type, name: str) -> None:
        self.key = f"_cached{name}"

    def __get__(self, instance: object, owner: type[Actor]) -> T:
        if self.key not in vars(owner):
            setattr(owner, self.key, self.compute(owner))
        cached: T = vars(owner)[self.key]
        return cached


def _members(cls: type[Actor]) -> dict[str, Any]:
    """Public attributes that the class and its bases below Actor define, base first; a subclass overrides."""
    layers = [each for each in reversed(cls.__mro__) if each not in Actor.__mro__]
    named = {name: value for layer in layers for name, value in vars(layer).items()}
    return {name: value for name, value in named.items() if not name.startswith("_")}


def _methods(cls: type[Actor]) -> dict[str, FunctionType]:
    return {
        name: value
        for name, value in _members(cls).items()
        if isinstance(value, FunctionType) and name not in _HOOKS and not is_private(value)
    }


def _outputs(cls: type[Actor]) -> dict[str, OutputSpec]:
    declared = ((name, value) for name, value in _members(cls).items() if isinstance(value, Output))
    return {name: OutputSpec(name, type_of(value.annotation)) for name, value in declared}


def _handlers(cls: type[Actor]) -> dict[str, HandlerSpec]:
    return {
        name: specify(function, port=name, method=True, declares_outputs=bool(cls.__outputs__))
        for name, function in _methods(cls).items()
    }


class Actor:
    """Private state plus handlers: each public method is an input port, unless marked `@private`.

    A method's parameters are the fields of its messages, what it returns leaves by the output port of its name. At most
    one handler of an actor executes at any instant. The verbs below may be used by handlers and hooks alone.
    """

    _binding: Binding | None = None
    __handlers__: ClassVar[_PerClass[Mapping[str, HandlerSpec]]] = _PerClass(_handlers)
    __outputs__: ClassVar[_PerClass[Mapping[str, OutputSpec]]] = _PerClass(_outputs)

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        for layer in cls.__mro__:
            if layer not in Actor.__mro__:
                _check_names(cls, {*vars(layer), *vars(layer).get("__annotations__", {})})
        for name, function in _methods(cls).items():
            check_signature(function, f"{cls.__name__}.{name}", method=True)

    def on_start(self) -> Any:
        """Runs in the worker before the first message, and again after each restart; may be a coroutine."""

    def on_drain(self) -> Any:
        """Runs in the worker when the graph begins to drain: an actor that takes work from elsewhere, or sends on its
        own, takes and sends no more; may be a coroutine.
        """

    def on_stop(self) -> Any:
        """Runs in the worker after the last message of a graph that drains; may be a coroutine."""

    @property
    def context(self) -> Context:
        """The input that the running handler works on."""
        return self._bound("context").context

    def loan(self, shape: Shape, dtype: DTypeLike) -> NDArray[Any]:
        """A writable array in this actor's slab: returned or emitted, it is published without a copy.

        Its contents are undefined. Raises OutOfMemory where the slabs may not grow for it (`memory_bytes` of
        `Graph.add`, or the machine's memory), MessageError for a dtype that no message carries.
        """
        return self._bound("loan").loan(shape, dtype)

    def loan_many(self, *tensors: tuple[Shape, DTypeLike]) -> list[NDArray[Any]]:
        """Writable arrays, one for each `(shape, dtype)`, in one block: sent in one message, none of them is copied.

        Raises what `loan` does.
        """
        return self._bound("loan_many").loan_many(tensors)

    def emit(self, port: str, value: Any) -> None:
        """Sends `value` by the declared output `port`, and never waits: what finds no room lies in the outbox. Raises
        UnknownPort for any other name; outside of any input EdgeFull where the outbox holds as much as the edges do.
        """
        binding = self._binding
        if binding is None or port not in binding.outputs:
            raise self._cannot_send(port, "emit")
        binding.emit(port, value)

    async def send(self, port: str, value: Any) -> None:
        """As `emit`, but waits until there is room in all edges that `block`, and memory for arrays that are no loan.
        Cancelled while it waits, it has sent nothing.
        """
        binding = self._binding
        if binding is None or port not in binding.outputs:
            raise self._cannot_send(port, "send")
        await binding.send(port, value)

    def _cannot_send(self, port: str, verb: str) -> SlabwireError:
        self._bound(verb)
        outputs: Mapping[str, OutputSpec] = type(self).__outputs__
        listed = ", ".join(outputs) or "none"
        hint = did_you_mean(port, outputs)
        return UnknownPort(f"{type(self).__name__} declares no output '{port}'{hint}; it declares {listed}")

    async def call(self, target: str, /, *args: Any, timeout_s: float | None = None, **fields: Any) -> Any:
        """The answer of another port of the graph, `"actor.port"`; without `timeout_s` the running request's deadline
        holds. A field that is a stream takes any iterable, asynchronous or not, which a task reads. Raises what the
        other handler raised, DeadlineExceeded, MessageError or UnknownPort.
        """
        return await self._bound("call").call(target, args, fields, timeout_s)

    def stream(
        self, target: str, /, *args: Any, timeout_s: float | None = None, **fields: Any
    ) -> AsyncGenerator[Any, None]:
        """The items of another port's stream; leaving the loop cancels the rest."""
        return self._bound("stream").stream(target, args, fields, timeout_s)

    def reply_stream(self) -> ReplyStream[Any]:
        """The stream that answers the running request, for a handler that is annotated `-> ReplyStream[T]` and returns
        it: the actor sends its items later, with those of its other streams. Raises SlabwireError in any other place.
        """
        return self._bound("reply_stream").reply_stream()

    def publish(self, items: Iterable[tuple[ReplyStream[T], T]], *, ended: Iterable[ReplyStream[Any]] = ()) -> None:
        """Sends what one step has made: items of any number of reply streams, each with its stream. What goes to one
        caller goes in one record, with one wake-up. Then the streams `ended` end. An item that no message carries fails
        its own stream alone. Items of streams that are over go nowhere.
        """
        self._bound("publish").publish(items, ended)

    def streams(self, on_items: OnItems | None = None) -> StreamGroup:
        """A group of streams of other ports, any number of them (`calls` of `Graph.add`), that are read together."""
        return self._bound("streams").streams(on_items)

    def delegate(
        self,
        target: str,
        /,
        *args: Any,
        report: str | None = None,
        about: Any = None,
        report_nbytes: int = REPORT_NBYTES,
        **fields: Any,
    ) -> Any:
        """Hands the running request on to another port, `"actor.port"`, which answers the caller: for the handler to
        return. Deadline, trace and cancel go along. At most 8 times a request: then the caller gets TooManyHops.

        With `report`, that port of this actor gets `about` and a `Report` of the answer at the end, which is kept for
        it up to `report_nbytes` bytes. Raises MessageError or UnknownPort.
        """
        return self._bound("delegate").delegate(target, args, fields, report, about, report_nbytes)

    def keep(self, name: str, layout: Layout, /, **parameters: int) -> Kept:
        """Memory that all replicas of this actor share and that outlives them: a successor finds there what was
        written. It goes with the graph. The first who asks makes it; fresh memory is zero.

        `parameters` are those of the layout. Who writes which line is the actor's affair: one process a line, and what
        is to be seen whole is published by an 8-byte store that comes last. As "actor.name" it is what another actor
        of the graph keeps, and can only be read. Raises LayoutError where it exists with another layout, OutOfMemory
        where `memory_bytes` of `Graph.add`, or the machine, has no room for it, GraphError for the name.
        """
        return self._bound("keep").keep(name, layout, parameters)

    def listen(self, address: str, *, replica: int | None = None) -> socket.socket:
        """A listening socket, non-blocking, that outlives this process: connections that wait in it are there for a
        successor, who gets the same socket by the same address. It goes with the graph.

        `address` is "tcp://host:port" (of a name the first address; port 0: any free one, the same for all replicas),
        "unix:///path" (for this user alone) or "fd://3" (a socket that the graph was started with). Each replica has a
        TCP socket of its own, and the kernel spreads connections over them; all others are one socket for all
        replicas. `replica` asks for the socket of another one, so as to accept what waits there while that one is
        away. Raises StartError with the address, the cause and the remedy, GraphError for a replica that there is not.
        """
        return self._bound("listen").listen(address, replica)

    def _bound(self, verb: str) -> Binding:
        if self._binding is None:
            name = type(self).__name__
            raise SlabwireError(f"{name}.{verb} may only be used inside a running graph, by a handler or a hook")
        return self._binding


_HOOKS = frozenset({"on_start", "on_drain", "on_stop"})
RESERVED = frozenset(name for name in vars(Actor) if not name.startswith("__")) - _HOOKS


def _check_names(cls: type[Actor], names: set[str]) -> None:
    taken = sorted(names & RESERVED)
    if taken:
        raise GraphError(f"{cls.__name__}.{taken[0]}: Actor itself uses the name '{taken[0]}'; choose another")


class FunctionActor(Actor):
    """A plain function, generator or coroutine as an actor, with one port that bears its name."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self._spec = function_spec(function)


def function_spec(function: Callable[..., Any]) -> HandlerSpec:
    """The one port of a function as an actor; a lambda's is named `apply`. Raises GraphError for its signature."""
    name = getattr(function, "__name__", "")
    port = name if name.isidentifier() else "apply"
    check_signature(function, port, method=False)
    return specify(function, port=port, method=False)


def ports_of(code: type[Actor] | Callable[..., Any]) -> tuple[tuple[HandlerSpec, ...], tuple[OutputSpec, ...]]:
    """Handlers and declared outputs of an actor's class or of a function."""
    if isinstance(code, type) and issubclass(code, Actor):
        return tuple(code.__handlers__.values()), tuple(code.__outputs__.values())
    return (function_spec(code),), ()


def handlers_of(actor: Actor | type[Actor], owner: str | None = None) -> dict[str, Handler]:
    """The handlers by port, for the worker; `owner` is the actor's name in errors. Of a class they are unbound."""
    if isinstance(actor, FunctionActor):
        spec = actor._spec
        return {spec.port: Handler(spec, actor._function, owner or spec.port)}
    cls = actor if isinstance(actor, type) else type(actor)
    name = owner or cls.__name__.lower()
    specs: Mapping[str, HandlerSpec] = cls.__handlers__
    return {port: Handler(spec, getattr(actor, port), name) for port, spec in specs.items()}


__all__ = [
    "Actor",
    "FunctionActor",
    "Handler",
    "Output",
    "batched",
    "fields_of",
    "handlers_of",
    "ports_of",
    "private",
    "resumable",
    "summary_of",
]
