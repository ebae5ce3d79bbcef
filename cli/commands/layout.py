"""`slabwire layout`: the map of shared memory, word by word."""

from __future__ import annotations

import pkgutil
from importlib import import_module
from typing import TYPE_CHECKING, Any

import click

from ...runtime.control import verbs
from ...runtime.errors import Disconnected
from ...runtime.host import run_directory
from ...runtime.spelling import near_or_all
from ..rendering.choice import ask, graphs_for_completion
from ..rendering.presentation import format_option, print_json, say

if TYPE_CHECKING:
    from ...shm.layout import Layout


@click.command()
@click.argument("name", required=False, shell_complete=lambda _ctx, _parameter, begun: _complete(begun))
@click.option("--kind", metavar="KIND", help="Only segments of this kind: lane, slab, bell and the like.")
@format_option
def command(name: str | None, kind: str | None, form: str) -> None:
    """Show every word of shared memory: its place, its only writer, its readers.

    Without NAME: each kind of segment that exists. With the NAME of a running graph: its segments. With that of a kind:
    this one, but where a graph of that name runs it is meant; then --kind NAME means the kind.
    """
    kinds = layouts()
    if kind is not None and kind not in kinds:
        raise click.BadParameter(f"there is no kind {kind!r}{near_or_all(kind, kinds)}", param_hint="--kind")
    graphs = run_directory.list_graphs() if name is not None else []
    if name is None or (name in kinds and name not in graphs and kind is None):
        found = [each for each in kinds.values() if (kind or name) in (None, each.name)]
        text = "\n\n".join(layout.describe() for layout in found)
        say(form, text, layouts=[_plain(layout) for layout in found])
    elif name in graphs:
        if name in kinds and kind is None:
            click.echo(f"note: a graph {name!r} runs; `slabwire layout --kind {name}` shows the kind", err=True)
        _print_segments(name, kind, form)
    else:
        there = near_or_all(name, [*graphs, *kinds])
        known = "`slabwire ps` lists graphs, `slabwire layout` all kinds"
        raise Disconnected(f"no graph {name!r} is running, nor is it a kind of segment{there} ({known})")


def _complete(begun: str) -> list[str]:
    return [each for each in (*graphs_for_completion(), *layouts()) if each.startswith(begun)]


def layouts() -> dict[str, Layout]:
    """All layouts by name. They are declared where modules are imported, so all modules that may declare one are."""
    from ... import runtime, shm
    from ...shm.layout import all_layouts

    for package in (shm, runtime):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not module.ispkg:
                import_module(module.name)
    return {each.name: each for each in all_layouts()}


def _plain(layout: Layout) -> dict[str, Any]:
    groups = [
        {
            "name": group.name,
            "writer": group.writer,
            "rows": group.rows,
            "row_nbytes": group.row_nbytes,
            "words": [{"name": word.name, "nbytes": word.nbytes, "readers": word.readers} for word in group.words],
        }
        for group in layout.groups
    ]
    return {"name": layout.name, "magic": f"{layout.magic:016x}", "groups": groups}


def _print_segments(graph: str, kind: str | None, form: str) -> None:
    found = [each for each in ask(graph, verbs.Segments())["segments"] if kind in (None, each["layout"])]
    if form == "json":
        print_json({"graph": graph, "segments": found})
    elif found:
        click.echo("\n\n".join(f"{segment['purpose']}\n{segment['map']}" for segment in found))
    else:
        click.echo(f"{graph} has no segment of the kind {kind}")
