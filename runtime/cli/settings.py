"""Defaults of options from a file: `slabwire.toml`, else `[tool.slabwire]` of `pyproject.toml`, in the working folder.

    [run]                  # the command
    drain-timeout = 5      # its option

An option and the environment come before it.
"""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any

from ..errors import SlabwireError

VARIABLE = "SLABWIRE_CONFIG"


class BadSettings(SlabwireError):
    """A file of settings that cannot be read or understood."""

    code = "settings"


def read_settings() -> tuple[str, dict[str, dict[str, Any]]]:
    """The file, and for each command in it what its options are by default. No file: no defaults."""
    named = os.environ.get(VARIABLE)
    if named:
        return named, _checked(named, _parsed(Path(named)))
    for name in ("slabwire.toml", "pyproject.toml"):
        if Path(name).is_file():
            document = _parsed(Path(name))
            if name == "slabwire.toml":
                return name, _checked(name, document)
            found = document.get("tool", {}).get("slabwire") if isinstance(document.get("tool"), dict) else None
            return name, {} if found is None else _checked(name, found)
    return "", {}


def _parsed(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise BadSettings(f"cannot read {path}: {reason}") from None


def _checked(file: str, document: Any) -> dict[str, dict[str, Any]]:
    """Tables of options by command; dashes in their names are underscores from here on."""
    if not isinstance(document, dict):
        raise BadSettings(f"{file}: slabwire's settings are tables, such as [run] with drain-timeout = 5")
    for command, options in document.items():
        if not isinstance(options, dict):
            raise BadSettings(
                f"{file}: {command!r} stands outside a command's table; write [run], and below it options"
            )
    return {
        command: {name.replace("-", "_"): value for name, value in options.items()}
        for command, options in document.items()
    }
