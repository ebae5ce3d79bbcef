"""`--against FOLDER` of a bench: another checkout's contestants in the same rounds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from .rival import VISITED_BY, Rival

_ARGUMENTS = "slabwire.bench.arguments"
# What only this side does.
_OURS = ("--against", "--output", "--plot")


class BenchCommand(click.Command):
    """Remembers its arguments, so that another checkout can be given the same."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta[_ARGUMENTS] = [str(ctx.info_name), *args]
        return super().parse_args(ctx, args)


def _checkout(_ctx: click.Context, _option: click.Parameter, folder: Path | None) -> Path | None:
    if folder is not None and not (folder / "bench" / "__init__.py").is_file():
        raise click.BadParameter(f"{str(folder)!r} is no checkout of Slabwire: it has no bench/__init__.py")
    return folder


against_option = click.option(
    "--against",
    metavar="FOLDER",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    callback=_checkout,
    help="Measure another checkout of Slabwire in the same rounds.",
)
_visited_option = click.option(VISITED_BY, type=int, hidden=True)


def rival_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Two: `against`, which people give, and `visited_by`, which the other checkout's process is given."""
    return against_option(_visited_option(command))


@contextmanager
def rival_of(folder: Path | None) -> Iterator[Rival | None]:
    """The checkout of a folder, while it takes part; it gets the arguments of the command that runs."""
    if folder is None:
        yield None
        return
    with Rival(folder, _without_ours(click.get_current_context().meta[_ARGUMENTS])) as rival:
        yield rival


def _without_ours(arguments: list[str]) -> list[str]:
    rest, left = [], iter(arguments)
    for each in left:
        if each in _OURS:
            next(left, None)
        elif each.partition("=")[0] not in _OURS:
            rest.append(each)
    return rest
