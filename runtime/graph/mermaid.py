"""Groups of supervision as boxes in a Mermaid flowchart (https://mermaid.js.org/syntax/flowchart.html#subgraphs)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from ..spec import GroupSpec


def boxed(groups: Iterable[GroupSpec], boxes: Mapping[str, str]) -> Iterator[str]:
    """The lines of a Mermaid flowchart for all actors (`boxes`, by name), groups as boxes around theirs."""
    known = {each.name: each for each in groups}
    inside = {member for each in known.values() for member in each.members}
    for name in boxes:
        if name not in inside:
            yield f"    {boxes[name]}"
    for number, name in enumerate(known):
        if name not in inside:
            yield from _box(known, boxes, name, f"g{number}", "    ")


def _box(
    known: Mapping[str, GroupSpec], boxes: Mapping[str, str], name: str, identifier: str, margin: str
) -> Iterator[str]:
    yield f'{margin}subgraph {identifier}["{name}: {known[name].strategy}"]'
    for number, member in enumerate(known[name].members):
        if member in known:
            yield from _box(known, boxes, member, f"{identifier}_{number}", margin + "    ")
        else:
            yield f"{margin}    {boxes[member]}"
    yield f"{margin}end"
