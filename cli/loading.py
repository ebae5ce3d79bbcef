"""Commands, which come by entry points: from here, from upper floors and from packages of other people."""

from __future__ import annotations

from importlib.metadata import EntryPoint

import click

from ..runtime.errors import SlabwireError


class BrokenCommand(SlabwireError):
    """A command that is registered and cannot be imported."""

    code = "load"


def load(entry: EntryPoint) -> click.Command:
    """Imports one command; raises BrokenCommand with the remedy, whatever the import raised."""
    try:
        command = entry.load()
    except Exception as error:
        what = f"{entry.value} cannot be imported: {type(error).__name__}: {error}"
        extras = ",".join(entry.extras)
        remedy = f"pip install 'slabwire[{extras}]'" if extras else "install what is missing, or reinstall its package"
        raise BrokenCommand(f"command {entry.name!r} is not available, {what}; {remedy}") from error
    if not isinstance(command, click.Command):
        raise BrokenCommand(f"command {entry.name!r} is not available: {entry.value} is not a click command")
    return command
