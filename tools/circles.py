"""Prints the circles of imports between files and between folders of the package, and fails if there is one.

    python tools/circles.py

Imports for type checkers and those inside functions count: each says that one file knows the other.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("shm", "runtime", "cli", "actors", "bench")


def modules() -> dict[str, Path]:
    """Every file of the package by its dotted name; a package's own file has the name of the folder."""
    files = [each for package in PACKAGES for each in sorted((ROOT / package).rglob("*.py"))]
    return {".".join(each.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): each for each in files}


def imported(name: str, path: Path, known: Mapping[str, Path]) -> Iterator[str]:
    """The modules of the package that a file names in its imports."""
    here = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            parts = here[: len(here) - node.level + 1] + (node.module or "").split(".") * bool(node.module)
            module = ".".join(parts)
            for each in node.names:
                inner = f"{module}.{each.name}"
                if inner in known or module in known:
                    yield inner if inner in known else module


def circles(arrows: Mapping[str, Iterable[str]]) -> list[list[str]]:
    """The strongly connected components of more than one node (Tarjan, 1972)."""
    found: list[list[str]] = []
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in arrows.get(node, ()):
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            at = stack.index(node)
            if len(stack) - at > 1:
                found.append(sorted(stack[at:]))
            del stack[at:]

    sys.setrecursionlimit(10_000)
    for node in arrows:
        if node not in index:
            visit(node)
    return found


def main() -> int:
    known = modules()
    files = {name: set(imported(name, path, known)) - {name} for name, path in known.items()}
    folder = {
        name: name if path.name == "__init__.py" else name.rpartition(".")[0] or name for name, path in known.items()
    }
    folders: dict[str, set[str]] = {}
    for name, others in files.items():
        folders.setdefault(folder[name], set()).update(folder[each] for each in others if folder[each] != folder[name])
    count = 0
    for what, arrows in (("files", files), ("folders", folders)):
        for circle in circles(arrows):
            count += 1
            print(f"{what}: {' <-> '.join(circle)}")
    print(f"{len(files)} files, {sum(map(len, files.values()))} arrows; {count or 'no'} circle{'s' * (count != 1)}")
    return int(count > 0)


if __name__ == "__main__":
    sys.exit(main())
