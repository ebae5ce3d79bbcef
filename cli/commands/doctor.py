"""`slabwire doctor`: whether this machine has what slabwire needs, and how to mend what it lacks."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path

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
@click.option(
    "--certificate",
    type=click.Path(path_type=Path),
    multiple=True,
    help="A file or directory that an ingress is to serve.",
)
@click.option("--key", type=click.Path(path_type=Path), help="The key of that file, where it is in another one.")
@format_option
@click.pass_obj
def command(complaint: Complaint, port: int, certificate: tuple[Path, ...], key: Path | None, form: str) -> int:
    """Check this machine, and print a fix for each check that fails; status 1 if something is broken."""
    from ..doctor.certificates import judge_certificates
    from ..doctor.examination import examine, judge_settings

    if key is not None and len(certificate) != 1:
        raise click.UsageError("--key goes with one --certificate")
    findings = [*examine(port=port), judge_settings(complaint.settings, complaint.bad_settings)]
    if certificate:
        findings.append(judge_certificates(certificate, key))
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
