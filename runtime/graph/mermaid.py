"""A graph as a Mermaid flowchart (https://mermaid.js.org/syntax/flowchart.html)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from ..spec import ActorSpec, GraphSpec, GroupSpec


def mermaid(spec: GraphSpec) -> str:
    """Actors as boxes, edges with ports, type and policy, clients as a rounded box with the ports they may call."""
    numbers = {actor.name: f"a{index}" for index, actor in enumerate(spec.actors)}
    lines = ["flowchart LR"]
    lines += _boxed(spec.groups, {actor.name: f'{numbers[actor.name]}["{_label(actor)}"]' for actor in spec.actors})
    for edge in spec.edges:
        kind = spec.actor(edge.source.actor).output_type(edge.source.port)
        ports = f"{_escaped(edge.source.port)} → {_escaped(edge.target.port)}"
        policy = "" if edge.when_full == "block" else f"<br/>{edge.when_full} at {edge.capacity}"
        text = f"{ports}<br/>{_escaped(kind.text)}{policy}"
        lines.append(f'    {numbers[edge.source.actor]} -- "{text}" --> {numbers[edge.target.actor]}')
    exposed = spec.routes[: spec.exposed]
    lines += ["    client([client])"] if exposed else []
    lines += [f'    client -. "{_escaped(route.entry.port)}" .-> {numbers[route.entry.actor]}' for route in exposed]
    return "\n".join(lines)


def _boxed(groups: Iterable[GroupSpec], boxes: Mapping[str, str]) -> Iterator[str]:
    """The lines for all actors (`boxes`, by name), with groups of supervision as boxes around theirs."""
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


def _label(actor: ActorSpec) -> str:
    replicas = f" ×{actor.replicas}" if actor.replicas > 1 else ""
    cores = (
        f"<br/>{actor.cores} core{'s' if actor.cores > 1 else ''}{' each' if replicas else ''}" if actor.cores else ""
    )
    return f"{_escaped(actor.name)}{replicas}<br/>{_escaped(actor.code.qualname)}{cores}"


def _escaped(text: str) -> str:
    """Mermaid takes HTML entities without the ampersand, as in #quot;."""
    return text.replace("#", "#35;").replace('"', "#quot;").replace("<", "#lt;").replace(">", "#gt;")
