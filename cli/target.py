"""The argument TARGET: a graph in a Python file or module, brought here as plain data."""

from __future__ import annotations

import click
from click.shell_completion import CompletionItem

from ..runtime.control.verbs import Describe
from ..runtime.host import run_directory
from ..runtime.spec import GraphSpec, graph_from_plain
from .rendering.choice import ask, running_graph


def complete_target(_ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Files, which the shell knows best."""
    return [CompletionItem(incomplete, type="file")]


target_argument = click.argument("target", shell_complete=complete_target)

TARGET_HELP = (
    "TARGET is a Python file (`graph.py`, or `graph.py:name` for one of several graphs) or `package.module:name`."
)


def read_running(name: str) -> GraphSpec:
    """The graph that runs under that name, as it was started. Raises Disconnected."""
    return graph_from_plain(ask(running_graph(name), Describe())["spec"])


def runs(name: str) -> bool:
    """Whether a graph of that name runs."""
    return name in run_directory.list_graphs()


def read_target(target: str) -> GraphSpec:
    """The validated graph, planned in a process of its own: no user code runs in this one.

    Raises LoadError or GraphError.
    """
    from ..runtime.launch.planner import plan_target

    return plan_target(target)
