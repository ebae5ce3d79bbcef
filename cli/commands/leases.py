"""`slabwire leases`: who keeps whose memory."""

from __future__ import annotations

from typing import Any

import click

from ...runtime.control.verbs import Leases
from ..rendering.choice import ask, name_argument, running_graph
from ..rendering.presentation import bytes_text, duration_text, format_option, print_json, print_table

ROWS = 20
HEADS = (">size", ">age", "owner", "taken by", "held by")


@click.command()
@name_argument
@click.option("--every", is_flag=True, help=f"Every block, not only the {ROWS} largest.")
@format_option
def command(name: str | None, every: bool, form: str) -> None:
    """Show the blocks that are in use, the largest first: whose they are, and who keeps them.

    Also the memory that the supervisor keeps for actors, and the sockets that it holds for them.

    A graph that was started with SLABWIRE_DEBUG_BLOCKS=1 tells also since when, for which request, and which line.
    """
    graph = running_graph(name)
    found = ask(graph, Leases())
    if form == "json":
        print_json({"graph": graph, **found})
        return
    for worker, pool in found["pools"].items():
        used = f"{bytes_text(pool['used_nbytes'])} of {bytes_text(pool['nbytes'])}"
        click.echo(f"{worker}: {used} in use, {pool['out']} block{'' if pool['out'] == 1 else 's'}")
    for each in found["kept"]:
        click.echo(f"{each['actor']} keeps {each['name']!r}: {bytes_text(each['nbytes'])}")
    for each in found["sockets"]:
        click.echo(f"{each['address']} is held for {', '.join(each['held_for'])}")
    for worker in found["silent"]:
        click.echo(f"{worker}: busy, it did not answer")
    blocks = found["blocks"] if every else found["blocks"][:ROWS]
    if blocks:
        click.echo()
        print_table(HEADS, [_row(block) for block in blocks])
    if len(blocks) < len(found["blocks"]):
        click.echo(f"and {len(found['blocks']) - len(blocks)} more: --every shows them")
    if blocks and not found["debug"]:
        click.echo("\nstart the graph with SLABWIRE_DEBUG_BLOCKS=1 to see ages, requests and lines")


def _row(block: dict[str, Any]) -> tuple[str, ...]:
    age = duration_text(block["age_s"]) if "age_s" in block else "-"
    holders = "; ".join(_holder(each) for each in block["held_by"]) or "itself"
    return bytes_text(block["nbytes"]), age, block["owner"], _taken(block) or "-", holders


def _taken(what: dict[str, Any]) -> str:
    """For whom, and at which line, as far as it is known."""
    request = f" (request {what['request']})" if what.get("request") else ""
    line = f" at {what['line']}" if what.get("line") else ""
    return f"{what.get('port', '')}{request}{line}".strip()


def _holder(each: dict[str, Any]) -> str:
    if each["unread"] and "age_s" not in each:
        return f"{each['holder']}, who has not handled it yet"
    taken = _taken(each)
    age = f" for {duration_text(each['age_s'])}" if "age_s" in each else ""
    return f"{each['holder']}{age}{f': {taken}' if taken else ''}"
