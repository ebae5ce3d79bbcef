"""The argument TARGET: a graph in a Python file or module, brought here as plain data."""

from __future__ import annotations

import click

from ..spec import GraphSpec

target_argument = click.argument("target", shell_complete=lambda _ctx, _parameter, _incomplete: [])

TARGET_HELP = (
    "TARGET is a Python file (`graph.py`, or `graph.py:name` for one of several graphs) or `package.module:name`."
)


def read_target(target: str) -> GraphSpec:
    """The validated graph, planned in a process of its own: no user code runs in this one.

    Raises LoadError or GraphError.
    """
    from ..planner import plan_target

    return plan_target(target)
