"""Prints how many statements each folder of the package has: no comments, no docstrings.

    python tools/statements.py [FOLDER OF ANOTHER CHECKOUT]

With another checkout the difference to it is printed, too: what a change has removed and added.
"""

from __future__ import annotations

import ast
import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("shm", "runtime", "cli", "actors")


def statements(path: Path) -> int:
    """Of one file. A docstring, or any other bare text, is none."""
    nodes = ast.walk(ast.parse(path.read_text()))
    return sum(isinstance(each, ast.stmt) and not _is_text(each) for each in nodes)


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def counted(root: Path) -> Counter[str]:
    """By package; `cli` lay in `runtime` once."""
    found: Counter[str] = Counter()
    for package in PACKAGES:
        for path in (root / package).rglob("*.py"):
            inside = path.relative_to(root).parts
            found["cli" if inside[:2] == ("runtime", "cli") else package] += statements(path)
    return found


def main() -> None:
    here = counted(ROOT)
    there = counted(Path(sys.argv[1])) if len(sys.argv) > 1 else None
    for package in PACKAGES:
        change = f"{here[package] - there[package]:+7,}" if there is not None else ""
        print(f"{package:10}{here[package]:7,}{change}")
    change = f"{here.total() - there.total():+7,}" if there is not None else ""
    print(f"{'all':10}{here.total():7,}{change}")


if __name__ == "__main__":
    main()
