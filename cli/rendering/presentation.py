"""What commands share in printing: the option --format, tables, and quantities for people."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from functools import wraps
from typing import Any

import click

from .complaint import Complaint

# Wide enough that nothing is cut where the output is a file or a pipe.
UNLIMITED_COLUMNS = 1000


def _remember(ctx: click.Context, _parameter: click.Parameter, value: str) -> str:
    complaint = ctx.find_object(Complaint)
    if complaint is not None:
        complaint.as_json = value == "json"
    return value


def format_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds `--format text|json`, passed to the command as `form`; errors follow it."""

    @wraps(command)
    def call(*arguments: Any, format: str, **others: Any) -> Any:  # noqa: A002 - it names the variable, too
        return command(*arguments, form=format, **others)

    return click.option(
        "--format",
        type=click.Choice(["text", "json"]),
        default="text",
        show_default=True,
        is_eager=True,
        envvar="SLABWIRE_FORMAT",
        show_envvar=True,
        callback=_remember,
        help="For people, or for programs.",
    )(call)


def print_json(document: Any) -> None:
    """One document on one line: what programs read, also from a stream of them."""
    click.echo(json.dumps(document, default=_as_text))


def say(form: str, text: str, /, **document: object) -> None:
    """Prints the text for people, or the document for programs, as --format says."""
    if form == "json":
        print_json(document)
    else:
        click.echo(text)


def _as_text(value: object) -> object:
    return {"nbytes": len(value)} if isinstance(value, bytes) else str(value)


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], title: str | None = None) -> Any:
    """A `rich.table.Table` of plain strings; a head that begins with ">" names a column of numbers."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    result = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    for position, head in enumerate(heads):
        right = head.startswith(">")
        prose = position == len(heads) - 1 and not right
        result.add_column(head.removeprefix(">"), justify="right" if right else "left", no_wrap=not prose)
    for row in rows:
        result.add_row(*(Text(cell) for cell in row))
    return result


def console() -> Any:
    """A `rich.console.Console` that never interprets what it prints, and cuts nothing where nobody looks at it."""
    from rich.console import Console

    result = Console(markup=False, highlight=False, emoji=False)
    if not result.is_terminal:
        result.width = UNLIMITED_COLUMNS
    return result


def print_table(heads: Sequence[str], rows: Iterable[Sequence[str]], title: str | None = None) -> None:
    """Prints a table, without blanks at the ends of its lines."""
    print_picture(console(), table(heads, rows, title))


def print_picture(screen: Any, picture: Any) -> None:
    """Prints what a console draws, without the blanks at the ends of its lines."""
    with screen.capture() as capture:
        screen.print(picture)
    for line in capture.get().splitlines():
        click.echo(line.rstrip())


def time_text(unix_s: float) -> str:
    """Date and time of day, UTC."""
    return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%d %H:%M:%S")


def bytes_text(nbytes: float) -> str:
    """1536 is "1.5 KiB"."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(nbytes) < 1024:
            return f"{nbytes:.0f} {unit}" if unit == "B" or nbytes >= 100 else f"{nbytes:.1f} {unit}"
        nbytes /= 1024
    return f"{nbytes:.1f} TiB"


def count_text(count: int) -> str:
    """1234567 is "1.2M"; what fits five places stays as it is."""
    if count < 100_000:
        return str(count)
    return f"{count / 1e3:.0f}k" if count < 1e6 else f"{count / 1e6:.1f}M" if count < 1e9 else f"{count / 1e9:.1f}G"


def duration_text(seconds: float) -> str:
    """75.2 is "1m15s", 0.5 is "0.5s"."""
    if seconds < 60:
        return f"{seconds:.1f}s"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days}d{hours}h"
    return f"{hours}h{minutes:02}m" if hours else f"{minutes}m{rest:02}s"


def micros_text(micros: float | None) -> str:
    """1500 is "1.5 ms"; nothing measured is "-"."""
    if not micros:
        return "-"
    if micros < 1000:
        return f"{micros:.1f} µs" if micros < 100 else f"{micros:.0f} µs"
    return f"{micros / 1e3:.1f} ms" if micros < 1e6 else f"{micros / 1e6:.2f} s"
