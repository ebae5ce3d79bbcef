"""Who takes part: our own ways, and other people's where they are installed."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from importlib import import_module
from typing import Any

# A module of this package, and its class.
Entry = tuple[str, str]


def importable(entries: Iterable[Entry]) -> tuple[list[type[Any]], dict[str, str]]:
    """The classes of all that can be imported, and who is left out, with the reason."""
    kinds: list[type[Any]] = []
    left_out: dict[str, str] = {}
    for module, name in entries:
        try:
            kinds.append(getattr(import_module(f"..ways.{module}", __package__), name))
        except ImportError as error:
            if (error.name or "").startswith(__package__.partition(".")[0]):
                raise  # ours is there, or something is broken
            left_out[(error.name or module).rpartition(".")[2]] = str(error)
    return kinds, left_out


def enter(entries: Iterable[Entry], stack: ExitStack, *arguments: Any) -> tuple[dict[str, Any], dict[str, str]]:
    """Starts all that can be: contestants by name, and who was left out, with the reason.

    One that cannot be imported is left out; one that cannot start is an error.
    """
    contestants: dict[str, Any] = {}
    kinds, left_out = importable(entries)
    for kind in kinds:
        contestant = stack.enter_context(kind(*arguments))
        contestants[contestant.name] = contestant
    return contestants, left_out
