"""The root command: finds commands by entry point and turns every error into one message and a status."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points
from itertools import pairwise
from typing import Any, NoReturn

import click

from .. import __version__
from ..runtime.errors import SlabwireError
from ..runtime.spelling import near_or_all
from .defaults import blame, require_settings
from .exits import Exit, exit_for
from .loading import BrokenCommand, load
from .rendering.complaint import Complaint, complain
from .settings import BadSettings, read_settings
from .variables import require_variables

GROUP = "slabwire.commands"

# In the order in which one comes to need them.
SECTIONS = {
    "A graph's file": "new validate plan graph run",
    "A running graph": "ps top logs stop restart move dead leases metrics trace",
    "This machine": "doctor bench layout keys tls completion",
}

# What ends a command as a matter of course: a traceback of it would teach nobody anything.
EXPECTED = (click.exceptions.Exit, click.UsageError, click.Abort, SystemExit, KeyboardInterrupt)


class Root(click.Group):
    """`slabwire`: its commands are the entry points of the group "slabwire.commands"."""

    @cached_property
    def found(self) -> dict[str, EntryPoint]:
        return {each.name: each for each in entry_points(group=GROUP)}

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return sorted(self.found)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        entry = self.found.get(cmd_name)
        return None if entry is None else load(entry)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """The list of `--help`; a command that cannot be imported stands there with the reason."""
        if not self.found:
            with formatter.section("Commands"):
                formatter.write_dl([("(none)", "the package is not installed: pip install slabwire")])
        for title, names in _sections(self.found):
            with formatter.section(title):
                formatter.write_dl([(name, _summary(self.found[name])) for name in names])

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Every exit status, then the epilog."""
        with formatter.section("Exit status"):
            formatter.write_dl([(str(each.value), each.meaning) for each in Exit])
        super().format_epilog(ctx, formatter)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name not in self.found and not name.startswith("-") and not ctx.resilient_parsing:
            raise click.UsageError(f"no command {name!r}{near_or_all(name, self.found)}", ctx)
        found = super().resolve_command(ctx, args)
        if not ctx.resilient_parsing and found[1] is not None:
            require_settings(ctx, found[1], args)
            require_variables(ctx, found[1], args)
        return found

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the command; that whoever reads its output went away (`slabwire logs | head`) is no error."""
        try:
            status = super().invoke(ctx)
            sys.stdout.flush()
        except BrokenPipeError:
            # What is still buffered must go somewhere when the interpreter flushes it.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return Exit.OK
        return status

    def main(self, args: Sequence[str] | None = None, *other: Any, **extra: Any) -> NoReturn:
        """Never returns: exits with a status of `Exit`, after at most one message on stderr."""
        arguments = list(sys.argv[1:] if args is None else args)
        extra["standalone_mode"] = False
        debug = "--debug" in arguments
        complaint = Complaint(as_json=_asks_for_json(arguments))
        try:
            if "_SLABWIRE_COMPLETE" not in os.environ:
                extra["default_map"] = _defaults(complaint, self.found)
            status = super().main(arguments, *other, obj=complaint, **extra)
        except BaseException as error:
            if (debug or complaint.debug) and not isinstance(error, EXPECTED):
                _print_traceback(error)
            status = _status_after(blame(error, complaint.settings), complaint)
        sys.exit(int(status) if isinstance(status, int) else Exit.OK)


def _sections(found: dict[str, EntryPoint]) -> list[tuple[str, list[str]]]:
    """What `--help` lists under which title; commands of other packages come last."""
    known = [(title, [name for name in names.split() if name in found]) for title, names in SECTIONS.items()]
    listed = {name for _, names in known for name in names}
    others = ("More", sorted(set(found) - listed))
    return [(title, names) for title, names in (*known, others) if names]


def _defaults(complaint: Complaint, commands: dict[str, EntryPoint]) -> dict[str, Any]:
    """A file that cannot be read is the affair of the command, not of `--help` and `--version`."""
    try:
        complaint.settings, defaults = read_settings()
        for name in defaults:
            if name not in commands:
                raise BadSettings(f"{complaint.settings}: there is no command {name!r}{near_or_all(name, commands)}")
    except BadSettings as error:
        complaint.bad_settings = error
        return {}
    return dict(defaults)


def _print_traceback(error: BaseException) -> None:
    """Ours, and the one that another process (the planner) handed over with the error."""
    traceback.print_exception(error)
    detail = getattr(error, "detail", "")
    if detail:
        click.echo(detail, err=True)


def _status_after(error: BaseException, complaint: Complaint) -> int:
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else Exit.FAILED
    if isinstance(error, (click.Abort, KeyboardInterrupt)):
        return Exit.INTERRUPTED
    return complain(error, complaint, _status_of(error))


def _status_of(error: BaseException) -> Exit:
    if isinstance(error, click.ClickException):
        return Exit.USAGE if isinstance(error, click.UsageError) else Exit.FAILED
    return exit_for(error) if isinstance(error, SlabwireError) else Exit.INTERNAL


def _asks_for_json(arguments: Sequence[str]) -> bool:
    """Seen before parsing, so that usage errors come in the format that was asked for, too."""
    if os.environ.get("SLABWIRE_FORMAT") == "json" and not any(each.startswith("--format") for each in arguments):
        return True
    return "--format=json" in arguments or ("--format", "json") in pairwise(arguments)


def _summary(entry: EntryPoint) -> str:
    try:
        return load(entry).get_short_help_str(100)
    except BrokenCommand as error:
        return f"(not available: {error.__cause__ or error})"


def _print_version(ctx: click.Context, _parameter: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        click.echo(f"slabwire {__version__}")
        ctx.exit()


@click.command(
    cls=Root,
    context_settings={"auto_envvar_prefix": "SLABWIRE", "help_option_names": ["-h", "--help"]},
    epilog="Every option can be set by the environment (--drain-timeout of `run` is SLABWIRE_RUN_DRAIN_TIMEOUT), or by "
    "slabwire.toml in the working folder ([run], drain-timeout = 5).",
)
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.option(
    "--version", is_flag=True, expose_value=False, is_eager=True, callback=_print_version, help="Show the version."
)
@click.pass_obj
def root(complaint: Complaint, debug: bool) -> None:
    """Actor graphs in shared memory: start them, look into them, stop them."""
    complaint.debug = debug
