"""`slabwire new`: a project that runs, from a template."""

from __future__ import annotations

import keyword
import re
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path
from string import Template

import click

from ...runtime.errors import SlabwireError
from ..rendering.presentation import format_option, say

_TEMPLATES = Path(__file__).parents[1] / "templates"
TEMPLATES = {
    "minimal": "two actors and an edge, and a test of them",
    "service": "a graph inside an asyncio service of one's own",
}
_LONGEST_NAME = 32  # it is part of a socket's path


class CannotCreate(SlabwireError):
    """A project that would overwrite something, or whose name cannot be a module's."""

    code = "new"


@click.command(epilog="Templates: " + "; ".join(f"{name}: {what}" for name, what in TEMPLATES.items()) + ".")
@click.argument("name")
@click.option("--template", type=click.Choice(list(TEMPLATES)), default="minimal", show_default=True)
@format_option
def command(name: str, template: str, form: str) -> None:
    """Make a project in the new folder NAME: a graph, a test that runs it, a README."""
    folder = Path(name)
    module = _module_name(folder.name)
    files = _write(folder, template, module)
    text = f"made {folder} with {', '.join(files)}\n\n  cd {folder}\n  slabwire run {module}.py\n  python -m pytest"
    say(form, text, folder=str(folder), template=template, graph=folder.name, files=files)


def _module_name(name: str) -> str:
    """The module of a project. Raises CannotCreate where there can be none of that name."""
    if not re.fullmatch(r"[a-z][a-z0-9_-]*", name) or len(name) > _LONGEST_NAME:
        raise CannotCreate(
            f"{name!r} cannot name a graph and its module: take a lower-case letter, then letters, digits, - and _, "
            f"{_LONGEST_NAME} at most"
        )
    module = name.replace("-", "_")
    if keyword.iskeyword(module) or module in sys.stdlib_module_names or find_spec(module) is not None:
        raise CannotCreate(f"Python has a module or word {module!r} already, which would be hidden; take another name")
    return module


def _write(folder: Path, template: str, module: str) -> list[str]:
    """The names of what was written: all of it or nothing."""
    words = {"name": folder.name, "module": module}
    names = {"module.py": f"{module}.py", "test.py": f"test_{module}.py", "gitignore": ".gitignore"}
    try:
        folder.mkdir()
    except FileExistsError:
        raise CannotCreate(f"{folder} is there already; take another name, or remove it") from None
    except OSError as error:
        raise CannotCreate(f"cannot make {folder}: {error.strerror}") from None
    written = []
    try:
        for source in sorted((_TEMPLATES / template).glob("*.txt")):
            target = names.get(source.stem, source.stem)
            (folder / target).write_text(Template(source.read_text()).substitute(words))
            written.append(target)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return written
