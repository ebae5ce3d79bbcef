"""`slabwire doctor`: whether this machine has what slabwire needs, and how to mend what it lacks."""

from __future__ import annotations

import click

from .exits import Exit
from .presentation import format_option, print_json

MARKS = {"ok": "ok     ", "note": "note   ", "broken": "BROKEN "}


@click.command()
@format_option
def command(form: str) -> int:
    """Check this machine, and print a fix for each check that fails; status 1 if something is broken."""
    from .examination import examine

    findings = examine()
    broken = [each for each in findings if each.state == "broken"]
    if form == "json":
        print_json({"healthy": not broken, "checks": [each.to_plain() for each in findings]})
        return Exit.FAILED if broken else Exit.OK
    width = max(len(each.name) for each in findings)
    for each in findings:
        click.echo(f"{MARKS[each.state]} {each.name.ljust(width)}  {each.found}")
        if each.fix and each.state != "ok":
            click.echo(f"{' ' * (width + 10)}-> {each.fix}")
    click.echo("\n" + (f"{len(broken)} broken" if broken else "slabwire can run here"))
    return Exit.FAILED if broken else Exit.OK
