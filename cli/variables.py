"""Variables of the environment that nothing reads, most likely because they are misspelt."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.metadata import entry_points

import click

from ..runtime.errors import SlabwireError
from ..runtime.host.variables import PREFIX, VARIABLES, unread
from .defaults import WITHOUT_SETTINGS, answer_help
from .loading import load
from .rendering.complaint import Complaint
from .settings import BadSettings


@dataclass(frozen=True)
class Unknown:
    """`command` is whose option it seems to be; "" for none."""

    name: str
    command: str
    hint: str

    def __str__(self) -> str:
        whose = f"`slabwire {self.command}` has no such option" if self.command else "nothing reads it"
        return f"the variable {self.name} is set, and {whose}{self.hint}"


def require_variables(ctx: click.Context, command: click.Command, words: Sequence[str]) -> None:
    """Raises BadSettings for one that seems to be an option of `command`, as for one in a file; warns of others."""
    complaint = ctx.ensure_object(Complaint)
    for each in unknown_variables(os.environ):
        if each.command.partition(" ")[0] == words[0] and words[0] not in WITHOUT_SETTINGS:
            answer_help(ctx, command, words)
            raise BadSettings(f"{each}", f"mend its name, or unset {each.name}")
        plain = {"code": "variable", "message": str(each)}
        click.echo(json.dumps({"warning": plain}) if complaint.as_json else f"warning: {each}", err=True)


def unknown_variables(environment: Mapping[str, str]) -> Iterator[Unknown]:
    """Commands are imported only where a variable seems to be for one of them."""
    names = unread(environment)
    commands = [each.name for each in entry_points(group="slabwire.commands")] if names else []
    for name in names:
        spoken = name.removeprefix(PREFIX).lower().split("_")
        exact = spoken[0] if spoken[0] in commands else ""
        meant = exact or next(iter(get_close_matches(spoken[0], commands, 1)), "")
        try:
            options = dict(_options(meant)) if meant else {}
        except SlabwireError:  # a command that cannot be imported here says so when it is asked for
            continue
        if name not in options:
            longest = max((each for each in options.values() if name.startswith(_prefix(each))), key=len, default=exact)
            yield Unknown(name, longest if exact else "", _hint(name, [*VARIABLES, *options]))


def _hint(name: str, known: Sequence[str]) -> str:
    near = get_close_matches(name, known, 1)
    return f"; did you mean {near[0]}?" if near else f"; there is {', '.join(VARIABLES)}"


def _prefix(command: str) -> str:
    return PREFIX + command.upper().replace(" ", "_").replace("-", "_") + "_"


def _options(command: str) -> Iterator[tuple[str, str]]:
    """The variables of a command's options and of those of its commands, each with whose it is."""
    (entry,) = entry_points(group="slabwire.commands", name=command)
    waiting = [(command, load(entry))]
    while waiting:
        path, found = waiting.pop()
        for option in found.params:
            if isinstance(option, click.Option) and option.name:
                yield f"{_prefix(path)}{option.name.upper()}", path
        if isinstance(found, click.Group):
            context = click.Context(found)
            inner = ((name, found.get_command(context, name)) for name in found.list_commands(context))
            waiting += [(f"{path} {name}", each) for name, each in inner if each is not None]
