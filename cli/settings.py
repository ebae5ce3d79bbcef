"""Defaults of options from a file: `slabwire.toml`, else `[tool.slabwire]` of `pyproject.toml`, in the working folder.

    [run]                  # the command
    drain-timeout = 5      # its option

    [keys.new]             # a command of a command
    format = "json"

An option and the environment come before it.
"""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path
from typing import Any

from ..runtime.errors import SlabwireError

VARIABLE = "SLABWIRE_CONFIG"
OWN, SHARED = "slabwire.toml", "pyproject.toml"
REMEDY = f"mend it, or go without: {VARIABLE}=/dev/null slabwire ..."

# A table or a key below tool.slabwire, seen without parsing; below a [tool] of its own, too.
_OURS = re.compile(
    rb"""^[ \t]*\[*[ \t]*["']?tool["']?[ \t]*\.[ \t]*["']?slabwire["']?[ \t]*[].=]"""
    rb"""|^[ \t]*\[[ \t]*tool[ \t]*\][^\n]*\n(?:(?![ \t]*\[)[^\n]*\n)*?[ \t]*["']?slabwire["']?[ \t]*[.=]""",
    re.MULTILINE,
)
_PLACE = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)$")


class BadSettings(SlabwireError):
    """A file of settings that cannot be read or understood."""

    code = "settings"

    def __init__(self, problem: str, remedy: str = "") -> None:
        super().__init__(f"{problem}; {remedy}" if remedy else problem)
        self.problem = problem
        self.remedy = remedy


def read_settings() -> tuple[str, dict[str, dict[str, Any]]]:
    """The file, and for each command in it what its options are by default. No file: no defaults.

    A pyproject.toml that is not TOML counts only if it has a `[tool.slabwire]`. Raises BadSettings.
    """
    named = os.environ.get(VARIABLE)
    if named:
        return named, _checked(named, _parsed(named, _content(named)))
    if _is_file(OWN):
        return OWN, _checked(OWN, _parsed(OWN, _content(OWN)))
    if _is_file(SHARED):
        return SHARED, _shared(_content(SHARED))
    return "", {}


def _shared(content: bytes) -> dict[str, dict[str, Any]]:
    try:
        document = _parsed(SHARED, content)
    except BadSettings:
        if _OURS.search(content):
            raise
        return {}  # nothing in it is for us: it is for others to complain
    tools = document.get("tool")
    found = tools.get("slabwire") if isinstance(tools, dict) else None
    return {} if found is None else _checked(SHARED, found)


def _is_file(name: str) -> bool:
    try:
        return Path(name).is_file()
    except OSError as error:
        raise BadSettings(f"cannot read {name}: {error.strerror}", REMEDY) from None


def _content(name: str) -> bytes:
    try:
        return Path(name).read_bytes()
    except OSError as error:
        raise BadSettings(f"cannot read {name}: {error.strerror}", REMEDY) from None


def _parsed(name: str, content: bytes) -> dict[str, Any]:
    """Names the line that is wrong."""
    try:
        return tomllib.loads(content.decode())
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        reason = f"byte 0x{content[error.start]:02x} is not UTF-8"
        raise BadSettings(f"cannot read {name}: line {line}: {reason}", f"save it as UTF-8, {REMEDY}") from None
    except RecursionError:
        raise BadSettings(f"cannot read {name}: its values are nested too deeply", REMEDY) from None
    except ValueError as error:
        found = _PLACE.search(str(error))
        line = int(found[1] or content.rstrip().count(b"\n") + 1) if found else 0
        reason = f"line {line}: {str(error)[: found.start()]}" if found else str(error)
        raise BadSettings(f"cannot read {name}: {reason}", REMEDY) from None


def _checked(file: str, document: Any) -> dict[str, dict[str, Any]]:
    """Tables of options by command; dashes in their names are underscores from here on."""
    if not isinstance(document, dict):
        raise BadSettings(f"{file}: slabwire's settings are tables, such as [run] with drain-timeout = 5")
    for command, options in document.items():
        if not isinstance(options, dict):
            raise BadSettings(
                f"{file}: {command!r} stands outside a command's table", "write [run], and below it options"
            )
    return {command: _underscored(options) for command, options in document.items()}


def _underscored(options: dict[str, Any]) -> dict[str, Any]:
    """Names of options as click has them; a table is a command's, which keeps its name."""
    return {
        **{name.replace("-", "_"): value for name, value in options.items() if not isinstance(value, dict)},
        **{name: _underscored(value) for name, value in options.items() if isinstance(value, dict)},
    }
