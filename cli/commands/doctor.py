"""`slabwire doctor`: whether this machine has what slabwire needs, and how to mend what it lacks."""

from __future__ import annotations

import os
from dataclasses import asdict

import click

from ..exits import Exit
from ..rendering.complaint import Complaint
from ..rendering.presentation import format_option, print_json

COLORS = {"ok": "green", "note": "yellow", "broken": "red"}
MARKS = {"ok": "ok     ", "note": "note   ", "broken": "BROKEN "}


@click.command()
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    default=8443,
    show_default=True,
    help="Whether an ingress could listen there.",
)
@format_option
@click.pass_obj
def command(complaint: Complaint, port: int, form: str) -> int:
    """Check this machine, and print a fix for each check that fails; status 1 if something is broken."""
    from ..doctor.examination import examine, judge_settings

    findings = [*examine(port=port), judge_settings(complaint.settings, complaint.bad_settings)]
    broken = [each for each in findings if each.state == "broken"]
    if form == "json":
        print_json({"healthy": not broken, "checks": [asdict(each) for each in findings]})
        return Exit.FAILED if broken else Exit.OK
    colored = not os.environ.get("NO_COLOR")  # click leaves them out where the output is no terminal
    width = max(len(each.name) for each in findings)
    for each in findings:
        mark = click.style(MARKS[each.state], fg=COLORS[each.state]) if colored else MARKS[each.state]
        click.echo(f"{mark} {each.name.ljust(width)}  {each.found}")
        if each.fix and each.state != "ok":
            click.echo(f"{' ' * (width + 10)}-> {each.fix}")
    click.echo("\n" + (f"{len(broken)} broken" if broken else "slabwire can run here"))
    return Exit.FAILED if broken else Exit.OK
