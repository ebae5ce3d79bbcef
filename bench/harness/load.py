"""How much is asked of those that carry streams: so many streams, each with so many items a second."""

from __future__ import annotations

import re
from dataclasses import dataclass

import click

# What the number in an item has room for.
MOST_STREAMS = 10**6
_MOST_PACE = 1000


@dataclass(frozen=True)
class Load:
    """So many streams, each with `pace` items a second."""

    streams: int
    pace: float

    @property
    def text(self) -> str:
        return f"{self.streams:,} streams x {self.pace:g}/s"


def loads_of(text: str) -> tuple[Load, ...]:
    """100x5,1000x5 as so many streams with so many items a second each. Raises BadParameter."""
    return tuple(dict.fromkeys(_load(each) for each in text.split(",")))


def _load(text: str) -> Load:
    found = re.fullmatch(r"(\d+)x(\d+(?:\.\d+)?)", text.strip().lower())
    if found is None or not 0 < int(found[1]) < MOST_STREAMS or not 0 < float(found[2]) <= _MOST_PACE:
        raise click.BadParameter(f"{text!r} is not so many streams with 1000 items a second at most, such as 1000x5")
    return Load(int(found[1]), float(found[2]))


def load_options(loads_text: str, seconds: float) -> list[click.Option]:
    """`--streams`, by default None where a topology is to take what `loads_text` says, and `--seconds`."""
    return [
        click.Option(
            ["--streams"],
            metavar="NxR,...",
            callback=lambda _ctx, _option, text: None if text is None else loads_of(text),
            help=f"How many, and items a second of each.  [default: {loads_text}]",
        ),
        click.Option(
            ["--seconds"],
            type=click.FloatRange(min=0.1, max=60),
            default=seconds,
            show_default=True,
            help="How long each visit measures, after a second that warms up.",
        ),
    ]
