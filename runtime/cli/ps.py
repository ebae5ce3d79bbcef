"""`slabwire ps`: the graphs that run on this host."""

from __future__ import annotations

from time import time
from typing import Any

import click

from ..errors import SlabwireError
from .presentation import bytes_text, duration_text, format_option, print_json, print_table

# A graph that is busy starting may be slow to answer, but a list must not hang on one that is stuck.
ANSWER_TIMEOUT_S = 2.0
_NAMED = 3


@click.command()
@format_option
def command(form: str) -> None:
    """List the running graphs of this user."""
    from .. import rundir

    statuses = [_status(name) for name in rundir.list_graphs()]
    if form == "json":
        print_json({"graphs": statuses})
    elif statuses:
        heads = ("graph", ">pid", "state", "up", ">workers", ">restarts", ">clients", ">shared", ">PSS", "remark")
        print_table(heads, [_row(status) for status in statuses])
    else:
        click.echo("no graph is running; start one with `slabwire run FILE`")


def _status(name: str) -> dict[str, Any]:
    from ..control import Control

    try:
        with Control(name, timeout_s=ANSWER_TIMEOUT_S) as control:
            answer: dict[str, Any] = control.request("status")
            return answer
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
