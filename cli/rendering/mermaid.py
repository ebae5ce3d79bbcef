"""A graph as a Mermaid flowchart (https://mermaid.js.org/syntax/flowchart.html)."""

from __future__ import annotations

from ...runtime.graph.mermaid import boxed
from ...runtime.spec import ActorSpec, GraphSpec, TypeSpec


def mermaid(spec: GraphSpec) -> str:
    """Actors as boxes, edges with ports, type and policy, clients as a rounded box with the ports they may call."""
    numbers = {actor.name: f"a{index}" for index, actor in enumerate(spec.actors)}
    lines = ["flowchart LR"]
    lines += boxed(spec.groups, {actor.name: f'{numbers[actor.name]}["{_box(actor)}"]' for actor in spec.actors})
    for edge in spec.edges:
        kind = spec.actor(edge.source.actor).output_type(edge.source.port) or TypeSpec()
        ports = f"{_escaped(edge.source.port)} → {_escaped(edge.target.port)}"
        policy = "" if edge.when_full == "block" else f"<br/>{edge.when_full} at {edge.capacity}"
        text = f"{ports}<br/>{_escaped(kind.text)}{policy}"
        lines.append(f'    {numbers[edge.source.actor]} -- "{text}" --> {numbers[edge.target.actor]}')
    exposed = spec.routes[: spec.exposed]
    lines += ["    client([client])"] if exposed else []
    lines += [f'    client -. "{_escaped(route.entry.port)}" .-> {numbers[route.entry.actor]}' for route in exposed]
    return "\n".join(lines)


def _box(actor: ActorSpec) -> str:
    replicas = f" ×{actor.replicas}" if actor.replicas > 1 else ""
    cores = (
        f"<br/>{actor.cores} core{'s' if actor.cores > 1 else ''}{' each' if replicas else ''}" if actor.cores else ""
    )
    return f"{_escaped(actor.name)}{replicas}<br/>{_escaped(actor.code.qualname)}{cores}"


def _escaped(text: str) -> str:
    """Mermaid takes HTML entities without the ampersand, as in #quot;."""
    return text.replace("#", "#35;").replace('"', "#quot;").replace("<", "#lt;").replace(">", "#gt;")
