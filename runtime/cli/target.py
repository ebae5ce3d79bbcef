"""The argument TARGET: a graph in a Python file or module, brought here as plain data."""

from __future__ import annotations

import click
from click.shell_completion import CompletionItem

from ..spec import GraphSpec


def complete_target(_ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Files, which the shell knows best."""
    return [CompletionItem(incomplete, type="file")]


target_argument = click.argument("target", shell_complete=complete_target)

TARGET_HELP = (
    "TARGET is a Python file (`graph.py`, or `graph.py:name` for one of several graphs) or `package.module:name`."
)


def read_target(target: str) -> GraphSpec:
    """The validated graph, planned in a process of its own: no user code runs in this one.

    Raises LoadError or GraphError.
    """
    from ..planner import plan_target

    return plan_target(target)
