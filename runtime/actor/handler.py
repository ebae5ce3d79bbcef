"""A handler: what a function's signature says about its port, and how a message becomes its arguments."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from functools import wraps
from typing import Any, TypeVar, get_origin, overload

from ..error_text import sendable
from ..errors import GraphError, MessageError
from ..spec import BatchSpec, FieldSpec, HandlerKind, HandlerSpec, TypeSpec
from .annotations import (
    ASYNC_STREAMS,
    STREAMS,
    check_of,
    element_type,
    hints_of,
    is_sent_stream,
    item_hint,
    item_type,
    may_be_sent_stream,
    type_of,
)
from .dataclass_fields import rebuild_of
from .fields import check_names, takes
from .reply_stream import ReplyStream

F = TypeVar("F", bound=Callable[..., Any])

_PRIVATE = "_slabwire_private"
_BATCH = "_slabwire_batch"
_RESUMABLE = "_slabwire_resumable"


def private(function: F) -> F:
    """Marks a public method that is no handler."""
    setattr(function, _PRIVATE, True)
    return function


def resumable(function: F) -> F:
    """Marks a stream that can go on after a crash: it is told by `sent: int = 0` how many items were sent already."""
    setattr(function, _RESUMABLE, True)
    return function


@overload
def batched(function: F, /) -> F: ...
@overload
def batched(*, max_size: int = 8, max_wait_s: float = 0.002) -> Callable[[F], F]: ...
def batched(function: F | None = None, /, *, max_size: int = 8, max_wait_s: float = 0.002) -> F | Callable[[F], F]:
    """Marks `def handler(self, items: list[X]) -> list[Y]`: it gets up to `max_size` inputs at once, the first of
    which waits `max_wait_s` seconds at most, and answers each in order.
    """
    if isinstance(max_size, bool) or not isinstance(max_size, int) or max_size < 1:
        raise GraphError(f"@batched: max_size={max_size!r} must be a whole number of at least 1")
    if max_wait_s < 0:
        raise GraphError(f"@batched: max_wait_s={max_wait_s!r} must not be negative")

    def mark(target: F) -> F:
        setattr(target, _BATCH, BatchSpec(max_size, max_wait_s))
        return target

    if function is not None and not callable(function):
        raise GraphError(f"@batched takes its settings by name: @batched(max_size={function!r})")
    return mark if function is None else mark(function)


def is_private(function: Any) -> bool:
    """Whether `@private` was put on it."""
    return bool(getattr(function, _PRIVATE, False))


def check_signature(function: Callable[..., Any], place: str, *, method: bool) -> None:
    """Raises GraphError for a signature that cannot be a handler's. Looks at no annotation, so it may run early."""
    for each in _parameters(function, method):
        if each.kind in (each.VAR_POSITIONAL, each.VAR_KEYWORD):
            stars = "*" if each.kind is each.VAR_POSITIONAL else "**"
            raise GraphError(
                f"{place}: '{stars}{each.name}' cannot be a field of a message; name each field, or mark it @private"
            )
        if each.kind is each.POSITIONAL_ONLY:
            raise GraphError(f"{place}: '{each.name}' is positional-only, fields go by name; remove the '/'")
    streams = inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function)
    names = [each.name for each in _parameters(function, method)]
    leaves = ReplyStream.__name__ in str(getattr(function, "__annotations__", {}).get("return"))
    if getattr(function, _RESUMABLE, False) and not ((streams or leaves) and "sent" in names):
        raise GraphError(f"{place}: @resumable is for a stream with a parameter 'sent: int = 0'")
    if getattr(function, _BATCH, None) and (streams or inspect.iscoroutinefunction(function) or len(names) != 1):
        form = "def name(self, items: list[X]) -> list[Y]"
        raise GraphError(f"{place}: @batched is for '{form}': one parameter, no yield, no async")


def _parameters(function: Callable[..., Any], method: bool) -> list[inspect.Parameter]:
    parameters = list(inspect.signature(function).parameters.values())
    return parameters[1:] if method else parameters


def specify(function: Callable[..., Any], *, port: str, method: bool, declares_outputs: bool = False) -> HandlerSpec:
    """The port that `function` makes; `method`: its first parameter is the actor."""
    hints = hints_of(function)
    result = hints.get("return", Any)
    kind = _kind(function, result)
    batch: BatchSpec | None = getattr(function, _BATCH, None)
    is_resumable = bool(getattr(function, _RESUMABLE, False))
    fields = tuple(
        _field(each, hints, batch is not None)
        for each in _parameters(function, method)
        if not (is_resumable and each.name == "sent")
    )
    _check_streams(port, kind, fields, is_resumable)
    return HandlerSpec(
        port,
        kind,
        fields,
        _result_type(kind, result, batch is not None),
        replies=not (declares_outputs and result in (None, type(None))),
        batch=batch,
        resumable=is_resumable,
        summary=summary_of(function),
    )


def summary_of(documented: Any) -> str:
    """The first line of a docstring of its own; "" without one."""
    lines = (inspect.cleandoc(getattr(documented, "__doc__", None) or "")).splitlines()
    return sendable(lines[0]) if lines else ""


def _field(parameter: inspect.Parameter, hints: dict[str, Any], is_batch: bool) -> FieldSpec:
    hint = hints.get(parameter.name, Any)
    required = parameter.default is inspect.Parameter.empty
    if is_batch:
        return FieldSpec(parameter.name, element_type(hint), required)
    if is_sent_stream(hint):
        return FieldSpec(parameter.name, item_type(hint), required, stream=True)
    if may_be_sent_stream(hint):
        raise GraphError(f"'{parameter.name}' may be a stream or something else; a stream must be one in every call")
    return FieldSpec(parameter.name, type_of(hint), required)


def _check_streams(port: str, kind: HandlerKind, fields: tuple[FieldSpec, ...], is_resumable: bool) -> None:
    """Raises GraphError for streams in the place of fields that a handler cannot have."""
    streams = [each for each in fields if each.stream]
    if not streams:
        return
    names = " and ".join(f"'{each.name}'" for each in streams)
    if len(streams) > 1:
        raise GraphError(f"{port}: {names} are streams, and a caller sends one stream only; make one of them a list")
    if kind not in ("coroutine", "async_generator"):
        raise GraphError(
            f"{port}: {names} is a stream that the caller sends, and a {kind} handler would block its worker while it "
            "waits for items; make it `async def`"
        )
    if not streams[0].required:
        raise GraphError(f"{port}: {names} is a stream that the caller sends, so it has no default; remove that")
    if is_resumable:
        raise GraphError(
            f"{port}: a @resumable handler is begun again behind what it had sent, and the items of {names} that it "
            "had read do not come again; remove the mark"
        )


def _kind(function: Callable[..., Any], result: Any) -> HandlerKind:
    if inspect.isasyncgenfunction(function):
        return "async_generator"
    if inspect.isgeneratorfunction(function):
        return "generator"
    if inspect.iscoroutinefunction(function):
        return "coroutine"
    if result is ReplyStream or get_origin(result) is ReplyStream:
        return "reply_stream"
    if get_origin(result) in STREAMS:
        return "generator"
    return "async_generator" if get_origin(result) in ASYNC_STREAMS else "plain"


def _result_type(kind: HandlerKind, result: Any, is_batch: bool) -> TypeSpec:
    if is_batch:
        return element_type(result)
    return type_of(result) if kind in ("plain", "coroutine") else item_type(result)


class Handler:
    """One handler of one actor in its worker.

    `function` is called with what `bind` made (a resumable one with `sent` as well, a batched one with one list in
    `field`); it gives a generator, an asynchronous generator or a coroutine where `spec.kind` says so, else the result.
    `field` is the only field's name, None where there are several or none. `is_at_once`: it is done when it returns,
    so its record may stay in the lane meanwhile. `stream` is the name of the parameter that is a stream, None where
    none is; its items come beside the message, which has all other fields.
    """

    __slots__ = (
        "_check",
        "_message",
        "_read_item",
        "_readers",
        "field",
        "function",
        "is_at_once",
        "owner",
        "spec",
        "stream",
    )

    def __init__(self, spec: HandlerSpec, function: Callable[..., Any], owner: str) -> None:
        self.spec = spec
        self.owner = owner
        self.function = _streaming(function, spec.kind)
        sent, hints = spec.sent_stream, hints_of(function)
        fields = tuple(each for each in spec.fields if not each.stream)
        self.stream = sent.name if sent is not None else None
        self._read_item = self._reader(sent, item_hint(hints.get(sent.name))) if sent is not None else None
        self._message = spec if sent is None else dataclasses.replace(spec, fields=fields)
        self.field = fields[0].name if len(fields) == 1 else None
        self._readers = tuple(self._reader(each, hints.get(each.name, Any)) for each in fields)
        # Of a single required field that is not built anew only this is left to do; False where there is more.
        self._check: Any = False
        if len(self._readers) == 1 and self._readers[0][1] and self._readers[0][3] is None:
            self._check = self._readers[0][2]
        self.is_at_once = spec.kind == "plain" and spec.batch is None

    def _reader(self, field: FieldSpec, hint: Any) -> tuple[str, bool, Any, Any]:
        if self.spec.batch is not None:
            hint = next(iter(getattr(hint, "__args__", ())), Any)
        return field.name, field.required, check_of(field.type), rebuild_of(hint)

    def run(self, value: Any, is_fields: int) -> Any:
        """Calls the function with what a message makes of its arguments. Raises what it raises, or as `bind`."""
        check, only = self._check, self.field
        if check is False or (is_fields and (len(value) != 1 or only not in value)):
            return self.function(**self.bind(value, bool(is_fields)))
        item = value[only] if is_fields else value
        if check is not None and (wrong := check(item, {})) is not None:
            raise self._refused(str(only), wrong)
        return self.function(**{str(only): item})

    def bind(self, value: Any, is_fields: bool) -> dict[str, Any]:
        """The keyword arguments that a message makes: `value` is its dict of fields, or what came along an edge.

        Raises MessageError naming port and field.
        """
        only = self.field
        if not is_fields:
            if only is None:
                value = self._spread(value)
            elif self._check is None:
                return {only: value}
            else:
                value = {only: value}
        arguments: dict[str, Any] = {}
        axes: dict[str, int] = {}
        for name, required, check, rebuild in self._readers:
            if name not in value:
                continue  # the default stands, or `check_names` finds it missing
            item = value[name]
            if not required and item is None:
                arguments[name] = None
                continue
            if check is not None and (wrong := check(item, axes)) is not None:
                raise self._refused(name, wrong)
            arguments[name] = item if rebuild is None else self._rebuilt(name, rebuild, item)
        if len(arguments) != len(self._readers) or len(value) != len(arguments):
            check_names(self._message, self.owner, value)
        return arguments

    def item(self, value: Any) -> Any:
        """An item of the stream that its caller sends, checked. Raises MessageError naming port and field."""
        if self._read_item is None:
            return value
        name, _, check, rebuild = self._read_item
        if check is not None and (wrong := check(value, {})) is not None:
            raise self._refused(name, f"an item of its stream: {wrong}")
        return value if rebuild is None else self._rebuilt(name, rebuild, value)

    def _spread(self, value: Any) -> dict[str, Any]:
        if isinstance(value, dict) and self._readers:
            return value
        remedy = "send a dict with these keys" if self._readers else "nothing can be connected to it"
        came = f"but {type(value).__name__} came along an edge"
        raise MessageError(f"{self.owner}.{self.spec.port}: {takes(self.spec)}, {came}; {remedy}")

    def _rebuilt(self, name: str, rebuild: Callable[[Any], Any], item: Any) -> Any:
        try:
            return rebuild(item)
        except MessageError as error:
            raise self._refused(name, str(error)) from None

    def _refused(self, name: str, why: str) -> MessageError:
        return MessageError(f"{self.owner}.{self.spec.port}: field '{name}': {why}")


def place_of(handler: Handler) -> str:
    """Where a handler is written, as `file:line`; "" for what has no source."""
    code = getattr(inspect.unwrap(handler.function), "__code__", None)
    return f"{code.co_filename}:{code.co_firstlineno}" if code is not None else ""


def _streaming(function: Callable[..., Any], kind: HandlerKind) -> Callable[..., Any]:
    """A plain function that returns an iterator becomes the generator function that its annotation promises."""
    if kind == "generator" and not inspect.isgeneratorfunction(function):

        @wraps(function)
        def items(**fields: Any) -> Iterator[Any]:
            yield from function(**fields)

        return items
    if kind == "async_generator" and not inspect.isasyncgenfunction(function):

        @wraps(function)
        async def async_items(**fields: Any) -> AsyncIterator[Any]:
            async for item in function(**fields):
                yield item

        return async_items
    return function
