"""`slabwire ps`: the graphs that run on this host."""

from __future__ import annotations

from collections.abc import Sequence
from time import time
from typing import Any

import click

from ...runtime.control.verbs import Status
from ...runtime.errors import SlabwireError
from ...runtime.host import run_directory
from ..rendering.board import fitting
from ..rendering.choice import ask
from ..rendering.presentation import (
    bytes_text,
    console,
    duration_text,
    format_option,
    print_json,
    print_table,
)

# A graph that is busy starting may be slow to answer, but a list must not hang on one that is stuck.
ANSWER_TIMEOUT_S = 2.0
_NAMED = 3
# With what is left out first where the screen is narrow: the highest.
_COLUMNS = (
    ("graph", 0),
    (">pid", 2),
    ("state", 1),
    ("up", 4),
    (">workers", 5),
    (">restarts", 3),
    (">clients", 7),
    (">shared", 8),
    (">PSS", 6),
    ("remark", 0),
)


@click.command()
@format_option
def command(form: str) -> None:
    """List the running graphs of this user."""
    statuses = [_status(name) for name in run_directory.list_graphs()]
    if form == "json":
        print_json({"graphs": statuses})
    elif statuses:
        _print([_row(status) for status in statuses], console())
    else:
        click.echo("no graph is running; start one with `slabwire run FILE`")


def _print(rows: Sequence[tuple[str, ...]], screen: Any) -> None:
    """What is wrong stands below the table where it has no room beside the rest, which is shown as far as it fits."""
    heads = [head for head, _ in _COLUMNS]
    # Between columns are two blanks, of which `fitting` counts one.
    widths = [max(len(each) for each in column) + 1 for column in zip(heads, *rows, strict=True)]
    if not screen.is_terminal or sum(widths) + len(widths) <= screen.width:
        print_table(heads, rows)
        return
    kept = fitting(widths[:-1], [rank for _, rank in _COLUMNS[:-1]], screen.width - 1)
    print_table([heads[at] for at in kept], [[row[at] for at in kept] for row in rows])
    for row in rows:
        if row[-1]:
            click.echo(f"{row[0]}: {row[-1]}")


def _status(name: str) -> dict[str, Any]:
    try:
        return ask(name, Status(), ANSWER_TIMEOUT_S)
    except SlabwireError as error:
        return {"graph": name, "state": "no answer", "error": str(error)}


def _row(status: dict[str, Any]) -> tuple[str, ...]:
    if "error" in status:
        return (status["graph"], "-", status["state"], *["-"] * 6, status["error"])
    workers = status["workers"]
    pss = (
        status["supervisor"]["pss_bytes"]
        + status["nursery"]["pss_bytes"]
        + sum(worker["pss_bytes"] for worker in workers)
    )
    return (
        status["graph"],
        str(status["pid"]),
        status["state"],
        duration_text(max(0.0, time() - status["started_unix_s"])),
        str(len(workers)),
        str(sum(worker["restarts"] for worker in workers)),
        str(status["clients"]),
        bytes_text(status["memory_bytes"]),
        bytes_text(pss),
        _remark(status.get("not_ready", [])),
    )


def _remark(not_ready: list[dict[str, str]]) -> str:
    """Who is waited for, by reason: a graph that starts has one for many."""
    actors: dict[str, list[str]] = {}
    for each in not_ready:
        actors.setdefault(each["reason"], []).append(each["actor"])
    return "; ".join(f"{_some(names)}: {reason}" for reason, names in actors.items())


def _some(names: list[str]) -> str:
    return ", ".join(names) if len(names) <= _NAMED else f"{', '.join(names[:_NAMED])} and {len(names) - _NAMED} more"
