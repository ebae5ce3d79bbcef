"""Prints the coverage of each folder of the package: statements, branches, and what of both was run.

    python tools/coverage_by_folder.py REPORT

REPORT is what `coverage json` writes; `make coverage` makes it.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path, PurePath
from typing import Any

COUNTED = ("num_statements", "covered_lines", "num_branches", "covered_branches")


def by_folder(report: dict[str, Any]) -> dict[str, Counter[str]]:
    """The counts of each folder, and of `all`."""
    folders: dict[str, Counter[str]] = {}
    for path, file in sorted(report["files"].items()):
        counts = Counter({name: file["summary"][name] for name in COUNTED})
        for folder in (str(PurePath(path).parent), "all"):
            folders.setdefault(folder, Counter()).update(counts)
    return dict(sorted(folders.items(), key=lambda each: each[0] == "all"))


def percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "-"


def line(folder: str, counts: Counter[str]) -> str:
    statements, run, branches, taken = (counts[name] for name in COUNTED)
    shares = percent(run, statements), percent(taken, branches), percent(run + taken, statements + branches)
    return f"{folder:26}{statements:11,}{shares[0]:>9}{branches:10,}{shares[1]:>9}{shares[2]:>9}"


def main() -> None:
    print(f"{'folder':26}{'statements':>11}{'run':>9}{'branches':>10}{'taken':>9}{'both':>9}")
    for folder, counts in by_folder(json.loads(Path(sys.argv[1]).read_text())).items():
        print(line(folder, counts))


if __name__ == "__main__":
    main()
