"""Whether what leaves by an output can be what an input takes: the two ends of an edge. No I/O."""

from __future__ import annotations

from ..actor.annotations import why_not
from ..spec import EdgeSpec, HandlerSpec, TypeSpec
from ..spelling import did_you_mean

_REMEDY = "change one of the annotations, or connect an actor between them that converts"


def why_no_edge(edge: EdgeSpec, source: TypeSpec, target: HandlerSpec) -> str | None:
    """Why no value can ever go along an edge, naming both ends and a remedy; None where one may."""
    fields = target.fields
    if not fields:
        return f"{edge.target} takes no fields, so nothing can be connected to it; give it one"
    if (stream := target.sent_stream) is not None:
        takes = f"{edge.target} takes a stream in '{stream.name}'"
        return f"{takes}, which only a call can send; nothing can be connected to it"
    gives = f"{edge.source} gives {source.text}"
    if len(fields) == 1:
        why = why_not(source, fields[0].type)
        takes = f"{edge.target} takes {fields[0].type.text}"
        return f"{gives}, but {takes}: {why}; {_REMEDY}" if why is not None else None
    names = ", ".join(each.name for each in fields)
    takes = f"{edge.target} takes several fields"
    if source.kind not in ("any", "dict"):
        return f"{gives}, but {takes}; give a dict of {names}"
    why = _keys_clash(source, target) if source.keys is not None else None
    return f"{gives}, but {takes} ({names}): {why}" if why is not None else None


def _keys_clash(source: TypeSpec, target: HandlerSpec) -> str | None:
    """Which field is missing, or is none of the target's: of a dataclass or a TypedDict all names are known."""
    keys = source.keys or ()
    names = [each.name for each in target.fields]
    for each in target.fields:
        if each.required and each.name not in keys:
            return f"field '{each.name}' is missing{did_you_mean(each.name, keys)}; add it, or give it a default there"
    for key in keys:
        if key not in names:
            return f"there is no field '{key}'{did_you_mean(key, names)}; add it there, or leave it out"
    return None
