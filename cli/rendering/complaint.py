"""How a failed command says what went wrong: one message on stderr, as text or as JSON."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

import click

from ...runtime.errors import GraphError, SlabwireError
from ...runtime.spelling import nearest


@dataclass
class Complaint:
    """How this run of the command line wants to hear of errors; set while options are parsed."""

    as_json: bool = False
    debug: bool = False
    settings: str = ""  # the file that defaults of options came from
    bad_settings: SlabwireError | None = None  # why there are none


def complain(error: BaseException, complaint: Complaint, status: int) -> int:
    """Prints the one message of a failed command and returns `status`."""
    if complaint.as_json:
        click.echo(json.dumps({"error": _plain(error, status)}), err=True)
        return status
    if type(error).__name__ == "NoArgsIsHelpError":  # a group without a command; click has it since 8.2
        click.echo(_text(error), err=True)
        return status
    click.echo(f"error: {_text(error)}", err=True)
    if isinstance(error, click.UsageError) and error.ctx is not None:
        click.echo(f"try: {error.ctx.command_path} --help", err=True)
    return status


def _plain(error: BaseException, status: int) -> dict[str, Any]:
    code = error.code if isinstance(error, SlabwireError) else "usage" if status == 2 else "internal"
    plain: dict[str, Any] = {"code": code, "message": _text(error), "status": status}
    if isinstance(error, GraphError):
        plain["problems"] = list(error.problems)
    return plain


def _text(error: BaseException) -> str:
    if isinstance(error, click.BadParameter) and isinstance(getattr(error.param, "type", None), click.Choice):
        return _choice_text(error)
    if isinstance(error, click.ClickException):
        return error.format_message()
    if isinstance(error, GraphError) and len(error.problems) > 1:
        return f"{len(error.problems)} problems\n" + "\n".join(f"  - {each}" for each in error.problems)
    if isinstance(error, (SlabwireError, OSError)):
        return str(error)
    return f"{type(error).__name__}: {error} (a bug of slabwire; `slabwire --debug ...` shows where)"


def _choice_text(error: click.BadParameter) -> str:
    """What click says of a word that is none of the choices, with the one that was meant."""
    said = error.format_message()
    found = re.search(r": '([^']*)' is not one of ", said)
    choices = [str(each) for each in error.param.type.choices] if error.param is not None else []  # type: ignore[attr-defined]
    near = nearest(found[1], choices) if found else []
    return f"{said} Did you mean '{near[0]}'?" if near else said
