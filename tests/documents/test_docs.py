"""The pages for users stay true: their programs run and print what they say, their tables are those of the code."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from machines import Cpu, Machine, record
from slabwire.cli.exits import Exit
from slabwire.cli.rendering.board import COLUMNS
from slabwire.runtime import errors
from slabwire.runtime.host.variables import VARIABLES

ROOT = Path(__file__).resolve().parents[2]
PAGES = ("actors.md", "operating.md")

# A block that begins with the name of a file is a whole program; a text block right below it is what it prints.
_PROGRAM = re.compile(
    r"^```python\n# (?P<name>\w+\.py)\n(?P<code>.*?)^```\n(?:```text\n(?P<prints>.*?)^```$)?", re.DOTALL | re.MULTILINE
)
_LINK = re.compile(r"\]\((?!https?://)([^)#\s]+)")


class Program(NamedTuple):
    """One program of a page; `prints` is None where the page does not say."""

    page: str
    name: str
    code: str
    prints: str | None


def page_text(page: str) -> str:
    return (ROOT / "docs" / page).read_text()


def programs() -> list[Program]:
    found = ((page, match) for page in PAGES for match in _PROGRAM.finditer(page_text(page)))
    return [Program(page, match["name"], match["code"], match["prints"]) for page, match in found]


def table_rows(page: str, heads: str) -> list[list[str]]:
    """The cells of the table whose first line is `heads`, without backquotes."""
    _, found, rest = page_text(page).partition(f"{heads}\n")
    assert found, f"{page} has no table {heads}"
    lines = rest.splitlines()[1:]
    ends = next((index for index, line in enumerate(lines) if not line.startswith("|")), len(lines))
    return [[cell.strip().strip("`") for cell in line.strip("|").split(" | ")] for line in lines[:ends]]


def test_the_page_of_actors_has_programs() -> None:
    assert [each.name for each in programs() if each.page == "actors.md"] == [
        "handlers.py",
        "loans.py",
        "outputs.py",
        "sources.py",
        "calls.py",
        "sent.py",
        "steps.py",
        "retries.py",
        "delegation.py",
        "kept.py",
        "held.py",
        "groups.py",
    ]


@pytest.mark.parametrize("program", programs(), ids=lambda each: f"{each.page}:{each.name}")
def test_a_program_prints_what_its_page_says(
    program: Program, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Short: the path of a socket has 107 bytes.
    monkeypatch.setenv("SLABWIRE_RUN_DIR", str(tmp_path_factory.mktemp("r")))
    script = tmp_path / program.name
    script.write_text(program.code)
    result = subprocess.run(
        [sys.executable, script], cwd=tmp_path, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert program.prints is None or result.stdout == program.prints


def test_the_table_of_errors_is_that_of_the_classes() -> None:
    rows = table_rows("actors.md", "| class | code | HTTP | when |")
    assert len(rows) > 10
    for name, code, status, _ in rows:
        named = getattr(errors, name)
        assert (named.code, str(named.http_status)) == (code, status), name


def test_the_table_of_exit_statuses_is_complete() -> None:
    rows = table_rows("operating.md", "| status | meaning |")
    assert [int(status) for status, _ in rows] == [each.value for each in Exit]


def test_every_column_of_top_is_explained() -> None:
    rows = table_rows("operating.md", "| column | meaning |")
    explained = {name for cells in rows for name in cells[0].split("`, `")}
    assert {column.head for column in COLUMNS} <= explained


def test_the_table_of_variables_is_complete() -> None:
    rows = table_rows("operating.md", "| variable | what it says |")
    assert [name for name, _ in rows] == sorted(VARIABLES)


def test_the_plan_is_that_of_the_example(tmp_path: Path) -> None:
    machine = Machine({0: Cpu("0", "0", "0-1"), 1: Cpu("1", "1", "0-1")}, {0: "0-1"}, "0-1", int(23.5 * (1 << 20)))
    found = re.search(
        r"^```\n\$ slabwire (plan [^\n]*)\n(.*?)^```", page_text("operating.md"), re.DOTALL | re.MULTILINE
    )
    assert found is not None
    words = [*found[1].split(), "--machine", str(record(tmp_path, machine))]
    planned = subprocess.run([sys.executable, "-m", "slabwire", *words], cwd=ROOT, capture_output=True, text=True)
    assert (planned.stdout, planned.stderr) == (found[2], "")


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    missing = [link for link in _LINK.findall(page_text(page)) if not (ROOT / "docs" / link).exists()]
    assert not missing
