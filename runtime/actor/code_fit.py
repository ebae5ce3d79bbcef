"""Whether code that a worker has imported anew still is what the graph was planned with. No I/O."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..errors import LoadError
from ..spec import ActorSpec, HandlerSpec
from .actor import Actor, ports_of
from .annotations import why_not


def require_fit(spec: ActorSpec, code: Any) -> None:
    """Raises LoadError where callers and edges would not find what they were told of. More than that does no harm."""
    if isinstance(code, type) and not issubclass(code, Actor):
        raise _changed(spec, f"{code.__name__} is no Actor")
    if not callable(code):
        raise _changed(spec, f"{spec.code.qualname} is {type(code).__name__}, neither a class nor a function")
    handlers, outputs = ports_of(code)
    if (handlers, outputs) == (spec.handlers, spec.outputs):
        return
    found = {each.port: each for each in handlers}
    for old in spec.handlers:
        new = found.get(old.port)
        problem = "it is gone" if new is None else next(_differences(old, new), None)
        if problem is not None:
            raise _changed(spec, f"handler '{old.port}': {problem}")
    types = {each.port: each.type for each in outputs}
    for output in spec.outputs:
        why = "it is gone" if output.port not in types else why_not(types[output.port], output.type)
        if why is not None:
            raise _changed(spec, f"output '{output.port}': {why}")


def _differences(old: HandlerSpec, new: HandlerSpec) -> Iterator[str]:
    """What senders, or receivers of its results, would be wrong about."""
    if old.streams != new.streams:
        yield "it answers with " + ("a stream, no longer with one value" if new.streams else "one value, no stream")
    if old.replies != new.replies:
        yield "it answers now" if new.replies else "it does not answer any more"
    fields = {each.name: each for each in old.fields}
    names = {each.name for each in new.fields}
    for each in old.fields:
        if each.name not in names:
            yield f"it takes no field '{each.name}' any more"
    for each in new.fields:
        before = fields.get(each.name)
        if each.required and (before is None or not before.required):
            yield f"it demands a field '{each.name}'"
        if before is not None and before.stream != each.stream:
            yield f"field '{each.name}' is a stream" + (" now" if each.stream else " no longer")
        why = None if before is None else why_not(before.type, each.type)
        if why is not None:
            yield f"field '{each.name}': {why}"
    why = why_not(new.result, old.result) if new.replies else None
    if why is not None:
        yield f"its result: {why}"


def _changed(spec: ActorSpec, what: str) -> LoadError:
    origin = spec.code.origin
    return LoadError(
        f"actor '{spec.name}': {origin} has changed since the graph was started: {what}; "
        "mend it there, or stop the graph and start it anew"
    )
