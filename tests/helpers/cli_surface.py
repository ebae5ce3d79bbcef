"""What the command line offers, as text: every command, argument and option, and every exit status.

`python tests/helpers/cli_surface.py` writes it to tests/data/cli_surface.txt, to which test_cli_surface.py compares it.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from slabwire.cli import root
from slabwire.cli.exits import Exit

FILE = Path(__file__).parents[1] / "data" / "cli_surface.txt"
# What the options of benches are may change with what they measure; their names may not.
NAMES_ONLY = {"slabwire bench"}


def surface() -> str:
    """One line for each thing that scripts may rely on."""
    context = click.Context(root, info_name="slabwire", auto_envvar_prefix="SLABWIRE")
    statuses = [f"exit {each.value}: {each.meaning}" for each in Exit]
    return "\n".join([*_of(root, context), "", *statuses, ""])


def _of(command: click.Command, context: click.Context) -> Iterator[str]:
    path = context.command_path
    yield path
    yield from (f"  {_parameter(each, context)}" for each in command.params)
    if not isinstance(command, click.Group):
        return
    for name in command.list_commands(context):
        if path in NAMES_ONLY:
            yield f"  command {name}"
            continue
        found = command.get_command(context, name)
        assert found is not None
        prefix = f"{context.auto_envvar_prefix}_{name.upper().replace('-', '_')}"
        yield ""
        yield from _of(found, click.Context(found, parent=context, info_name=name, auto_envvar_prefix=prefix))


def _parameter(parameter: click.Parameter, context: click.Context) -> str:
    if isinstance(parameter, click.Argument):
        many = "..." if parameter.nargs != 1 else ""
        return f"argument {parameter.name}{many}, {_type(parameter)}{', required' if parameter.required else ''}"
    assert isinstance(parameter, click.Option)
    names = "/".join([*parameter.opts, *parameter.secondary_opts])
    kind = "flag" if parameter.is_flag else _type(parameter)
    many = ", repeatable" if parameter.multiple else ""
    default = "" if _is_none(parameter.default) else f", default {_default(parameter.default)}"
    variable = f", {_variable(parameter, context)}" if parameter.expose_value else ""
    return f"option {names}, {kind}{many}{', required' if parameter.required else ''}{default}{variable}"


def _variable(option: click.Option, context: click.Context) -> str:
    if isinstance(option.envvar, str):
        return option.envvar
    return f"{context.auto_envvar_prefix}_{str(option.name).upper()}"


def _default(value: Any) -> str:
    return "computed" if callable(value) else repr(value)


def _is_none(value: Any) -> bool:
    """Since 8.3 click marks what has no default by a member of an enum."""
    return value is None or value is False or isinstance(value, enum.Enum)


def _type(parameter: click.Parameter) -> str:
    kind = parameter.type
    if isinstance(kind, click.Choice):
        return "|".join(map(str, kind.choices))
    bounds = [
        f"{sign}{bound}"
        for sign, bound in (("≥", getattr(kind, "min", None)), ("≤", getattr(kind, "max", None)))
        if bound is not None
    ]
    return " ".join([kind.name, *bounds])


if __name__ == "__main__":
    FILE.write_text(surface())
