"""Prints files that are too long and folders that are too full, and fails if there is one.

    python tools/sizes.py

A file of more lines is two nouns, a folder of more files is two rooms.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MOST_LINES, MOST_FILES = 350, 25
# The files of the first are bounded, the folders of both.
PACKAGES = ("shm", "runtime", "cli", "actors")
OTHERS = ("bench", "tests", "tools", "examples", "docs")


def long_files(root: Path) -> Iterator[tuple[int, str]]:
    """How many lines, and the file."""
    for path in (path for package in PACKAGES for path in sorted((root / package).rglob("*.py"))):
        count = len(path.read_text().splitlines())
        if count > MOST_LINES:
            yield count, str(path.relative_to(root))


def full_folders(root: Path) -> Iterator[tuple[int, str]]:
    """How many files, and the folder. What Python has compiled does not count."""
    paths = (path for package in (*PACKAGES, *OTHERS) for path in sorted((root / package).rglob("*")))
    folders = Counter(path.parent for path in paths if path.is_file() and path.parent.name != "__pycache__")
    for folder, count in folders.items():
        if count > MOST_FILES:
            yield count, str(folder.relative_to(root))


def main() -> int:
    found = [f"{count} lines: {path}" for count, path in long_files(ROOT)]
    found += [f"{count} files: {folder}" for count, folder in full_folders(ROOT)]
    print(*found, f"{len(found) or 'none'} over {MOST_LINES} lines a file, {MOST_FILES} files a folder", sep="\n")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
