"""`slabwire layout`: the map of shared memory, word by word."""

from __future__ import annotations

import pkgutil
from importlib import import_module
from typing import TYPE_CHECKING, Any

import click

from .presentation import format_option, print_json

if TYPE_CHECKING:
    from ...shm.layout import Layout


@click.command()
@click.argument("name", required=False)
@format_option
def command(name: str | None, form: str) -> None:
    """Show every word of shared memory: its place, its only writer, its readers.

    Without NAME: each kind of segment that exists. With the NAME of a running graph: its segments.
    """
    if name is not None:
        _print_segments(name, form)
        return
    layouts = _layouts()
    if form == "json":
        print_json({"layouts": [_plain(layout) for layout in layouts]})
    else:
        click.echo("\n\n".join(layout.describe() for layout in layouts))


def _layouts() -> list[Layout]:
    """Layouts are declared where modules are imported, so all that may declare one are."""
    from ... import runtime, shm
    from ...shm.layout import all_layouts

    for package in (shm, runtime):
        for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            if not module.ispkg:
                import_module(module.name)
    return all_layouts()


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


def _print_segments(name: str, form: str) -> None:
    from ..control import Control
    from .choice import running_graph

    graph = running_graph(name)
    with Control(graph) as control:
        answer = control.request("layout")
    if form == "json":
        print_json({"graph": graph, **answer})
        return
    click.echo("\n\n".join(f"{segment['purpose']}\n{segment['map']}" for segment in answer["segments"]))
