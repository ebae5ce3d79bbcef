"""`slabwire new`: what it writes runs, as it stands."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from fake_graphs import invoke
from slabwire.cli.commands.new import TEMPLATES
from slabwire.cli.exits import Exit


def run(folder: Path, *command: str) -> str:
    done = subprocess.run([sys.executable, "-m", *command], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("template", ["minimal", pytest.param("service", marks=pytest.mark.long)])
def test_a_project_validates_plans_and_passes_its_test(
    template: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    document = json.loads(invoke("new", "my-eyes", "--template", template, "--format", "json").stdout)
    assert {"my_eyes.py", "test_my_eyes.py", "README.md", "pyproject.toml"} <= set(document["files"])
    folder = tmp_path / "my-eyes"
    assert all((folder / each).is_file() for each in document["files"])
    assert not any("$name" in (folder / each).read_text() for each in document["files"])
    monkeypatch.chdir(folder)
    assert "valid: " in invoke("validate", "my_eyes.py").stdout
    assert "my-eyes on " in invoke("plan", "my_eyes.py").stdout
    assert "1 passed" in run(folder, "pytest", "-q", "-p", "no:cacheprovider")


def test_every_template_is_tested() -> None:
    assert set(TEMPLATES) == {"minimal", "service"}


def test_it_overwrites_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "README.md").write_text("mine")
    result = invoke("new", "mine")
    assert result.exit_code == Exit.FAILED
    assert "mine is there already" in result.stderr
    assert (tmp_path / "mine" / "README.md").read_text() == "mine"


@pytest.mark.parametrize("name", ["Eyes", "2eyes", "queue", "class", "numpy", "e" * 33, "nowhere/eyes"])
def test_names_that_cannot_be(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert invoke("new", name).exit_code == Exit.FAILED
    assert list(tmp_path.iterdir()) == []
