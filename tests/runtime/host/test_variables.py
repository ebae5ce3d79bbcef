"""Variables of the environment: all that are read are known, and what nothing reads is named."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import slabwire
from fake_graphs import Graphs, fake_graphs, fake_targets, invoke
from slabwire.cli.exits import Exit
from slabwire.cli.variables import unknown_variables
from slabwire.runtime.host import variables
from slabwire.runtime.host.variables import VARIABLES

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Graphs:
    fake_targets(monkeypatch)
    return fake_graphs(monkeypatch, tmp_path)


def test_all_that_the_source_names_are_known() -> None:
    named = {
        name
        for folder in ("actors", "bench", "runtime", "shm")
        for path in (ROOT / folder).rglob("*.py")
        for name in re.findall(r"(?<![_A-Z])SLABWIRE_[A-Z_]*[A-Z]\b", path.read_text())
    }
    assert set(VARIABLES) <= named
    assert list(unknown_variables(dict.fromkeys(named, ""))) == []


@pytest.mark.parametrize(
    ("variable", "meant"),
    [
        ("SLABWIRE_RUN_DRAIN_TIMOUT", "SLABWIRE_RUN_DRAIN_TIMEOUT"),
        ("SLABWIRE_RUN_DIRR", "SLABWIRE_RUN_DIR"),
        ("SLABWIRE_RUNDIR", "SLABWIRE_RUN_DIR"),
        ("SLABWIRE_DEBUG_BLOCK", "SLABWIRE_DEBUG_BLOCKS"),
        ("SLABWIRE_KEY", "SLABWIRE_KEYS"),
        ("SLABWIRE_CACHEDIR", "SLABWIRE_CACHE_DIR"),
        ("SLABWIRE_STPO_NOW", "SLABWIRE_STOP_NOW"),
        ("SLABWIRE_KEYS_ADD_OUTPT", "SLABWIRE_KEYS_ADD_OUTPUT"),
    ],
)
@pytest.mark.usefixtures("graphs")
def test_what_nothing_reads_is_named_with_what_was_meant(variable: str, meant: str) -> None:
    result = invoke("ps", environment={variable: "1"})
    assert (result.exit_code, result.stdout[:8]) == (Exit.OK, "no graph")
    assert re.fullmatch(rf"warning: the variable {variable} is set, and .*; did you mean {meant}\?\n", result.stderr)


@pytest.mark.usefixtures("graphs")
def test_one_that_is_like_none_is_told_all() -> None:
    assert "SLABWIRE_RUN_DIR" in invoke("ps", environment={"SLABWIRE_QQQQQQQQQ": "1"}).stderr


@pytest.mark.usefixtures("graphs")
def test_options_of_the_command_that_is_run_are_errors_as_in_a_file() -> None:
    wrong = {"SLABWIRE_RUN_DRAIN_TIMOUT": "5"}
    result = invoke("run", "vision.py", environment=wrong)
    said = "`slabwire run` has no such option; did you mean SLABWIRE_RUN_DRAIN_TIMEOUT?; mend its name, or unset"
    assert (result.exit_code, said in result.stderr) == (Exit.FAILED, True)
    assert invoke("run", "--help", environment=wrong).exit_code == Exit.OK
    inner = invoke("keys", "add", "x", "y", environment={"SLABWIRE_KEYS_ADD_OUTPT": "z"})
    assert (inner.exit_code, "`slabwire keys add` has no such option" in inner.stderr) == (Exit.FAILED, True)


@pytest.mark.usefixtures("graphs")
def test_options_of_all_commands_are_known() -> None:
    right = {"SLABWIRE_RUN_LISTEN": "x", "SLABWIRE_PLAN_FORMAT": "text", "SLABWIRE_KEYS_ADD_OUTPUT": "x"}
    assert invoke("ps", environment={**right, "OTHER_RUN_DIRR": "x"}).stderr == ""


@pytest.mark.usefixtures("graphs")
def test_warnings_for_programs() -> None:
    result = invoke("ps", "--format", "json", environment={"SLABWIRE_RUNDIR": "1"})
    assert json.loads(result.stdout) == {"graphs": []}
    assert json.loads(result.stderr)["warning"]["code"] == "variable"


def test_programs_that_set_nothing_import_no_command_line() -> None:
    code = "import sys, slabwire.runtime.host.variables as v; v.warn_of_unknown(); sys.exit('click' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_whoever_embeds_is_warned_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(variables, "_warned", set())
    monkeypatch.setenv("SLABWIRE_RUN_DIR", str(tmp_path / "run"))
    monkeypatch.setenv("SLABWIRE_RUNDIR", "1")
    monkeypatch.setenv("SLABWIRE_RUN_LISTEN", "an option")

    def connect_twice() -> None:
        for _ in range(2):
            with pytest.raises(slabwire.Disconnected):
                slabwire.connect("nobody")

    with pytest.warns(UserWarning, match="SLABWIRE_RUNDIR is set.*did you mean SLABWIRE_RUN_DIR") as caught:
        connect_twice()
    assert len(caught) == 1
    assert caught[0].filename == __file__
