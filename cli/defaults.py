"""Whether the defaults that a file gives fit the commands: their names, and what kind of value an option takes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import click
from click.core import ParameterSource

from ..runtime.spelling import near_or_all
from .rendering.complaint import Complaint
from .settings import BadSettings

# These commands help to find out what is wrong, or run at each start of a shell.
WITHOUT_SETTINGS = ("doctor", "completion")


def require_settings(ctx: click.Context, command: click.Command, words: Sequence[str]) -> None:
    """Raises BadSettings if the file cannot be used for `command`, unless its `words` ask for help, which answers."""
    complaint = ctx.ensure_object(Complaint)
    if complaint.bad_settings is None:
        name, defaults = words[0], ctx.default_map or {}
        problem = next(_problems(ctx, (name,), command, defaults.get(name, {})), None)
        if problem is None:
            return
        complaint.bad_settings = BadSettings(f"{complaint.settings}: {problem}")
    ctx.default_map = {}
    if words[0] not in WITHOUT_SETTINGS:
        answer_help(ctx, command, words)
        raise complaint.bad_settings


def blame(error: BaseException, file: str) -> BaseException:
    """A value that an option refused, as a mistake of the file if that is where it stands; else `error` itself."""
    if not isinstance(error, click.BadParameter) or error.ctx is None:
        return error
    named = (each for each in error.ctx.command.params if error.param_hint in each.opts)
    option = error.param or next(named, None)  # a command that refuses a value itself gives the name alone
    if option is None or error.ctx.get_parameter_source(str(option.name)) is not ParameterSource.DEFAULT_MAP:
        return error
    _, _, command = error.ctx.command_path.partition(" ")
    return FromFile(error, f"{file}: {str(option.name).replace('_', '-')} of [{command.replace(' ', '.')}]")


class FromFile(click.BadParameter):
    """What click says of a value, with the place in the file instead of the option."""

    def __init__(self, error: click.BadParameter, place: str) -> None:
        super().__init__(error.message, error.ctx, error.param)
        self.place = place

    def format_message(self) -> str:
        return f"{self.place}: {self.message}"


def _problems(
    ctx: click.Context, path: tuple[str, ...], command: click.Command, table: Mapping[str, Any]
) -> Iterator[str]:
    """Of one command's table, and of those of its commands."""
    options = {str(each.name): each for each in command.params if isinstance(each, click.Option)}
    inner = command.list_commands(ctx) if isinstance(command, click.Group) else []
    for key, value in table.items():
        name = key.replace("_", "-")
        if isinstance(command, click.Group) and key in inner and isinstance(value, dict):
            # One that cannot be imported here says so when it is asked for.
            with contextlib.suppress(click.ClickException):
                found = command.get_command(ctx, key)
                if found is not None:
                    yield from _problems(ctx, (*path, key), found, value)
        elif key in options or name.replace("-", "_") in options:
            option = options.get(key) or options[name.replace("-", "_")]
            if not _fits(option, value):
                yield f"{name} of [{'.'.join(path)}] takes {_kind(option)}, not {value!r}"
        else:
            what = "command" if isinstance(value, dict) and inner else "option"
            known = inner if what == "command" else [each.replace("_", "-") for each in options]
            said = key if what == "command" else name
            yield f"`slabwire {' '.join(path)}` has no {what} {said!r}{near_or_all(said, known)}"


def _fits(option: click.Option, value: Any) -> bool:
    """Whether click can be trusted with it: it splits texts into letters, and numbers are no lists to it."""
    if option.multiple or option.nargs != 1:
        return isinstance(value, list) and not any(isinstance(each, (list, dict)) for each in value)
    if isinstance(value, bool):
        return option.is_flag
    return isinstance(value, (str, int, float))


def _kind(option: click.Option) -> str:
    if option.multiple or option.nargs != 1:
        return "a list"
    return "true or false" if option.is_flag else "one text or number"


def answer_help(ctx: click.Context, command: click.Command, words: Sequence[str]) -> None:
    """Parses the words as far as `--help`, which ends the command; what else is wrong with them shows, too."""
    name, *rest = words
    with contextlib.suppress(click.MissingParameter):  # the file may have it
        inner = command.make_context(name, list(rest), parent=ctx)
        if isinstance(command, click.Group):
            position = next((index for index, word in enumerate(rest) if not word.startswith("-")), None)
            found = None if position is None else command.get_command(inner, rest[position])
            if found is not None:
                answer_help(inner, found, rest[position:])
