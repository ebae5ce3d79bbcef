"""`slabwire validate`: checks a graph without running it."""

from __future__ import annotations

import click

from ..rendering.presentation import format_option, say
from ..target import TARGET_HELP, read_target, target_argument


@click.command(epilog=TARGET_HELP)
@target_argument
@format_option
def command(target: str, form: str) -> None:
    """Check a graph without running it; status 1 and every reason if it cannot run."""
    spec = read_target(target)
    counts = {
        "actors": len(spec.actors),
        "instances": sum(actor.replicas for actor in spec.actors),
        "edges": len(spec.edges),
        "ports": spec.exposed,
    }
    parts = ", ".join(f"{count} {noun.removesuffix('s') if count == 1 else noun}" for noun, count in counts.items())
    say(form, f"{spec.name} is valid: {parts}", graph=spec.name, valid=True, **counts)
