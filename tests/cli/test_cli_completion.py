"""What shells complete: commands, options, choices, graphs, actors, benches, files."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path

import pytest

from fake_graphs import Graphs, fake_graphs, invoke
from terminal import Terminal


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Graphs:
    return fake_graphs(monkeypatch, tmp_path)


def completed(*words: str, shell: str = "bash") -> list[str]:
    """What follows the words before the last one, which has been begun."""
    environment = {
        "_SLABWIRE_COMPLETE": f"{shell}_complete",
        "COMP_WORDS": " ".join(("slabwire", *words)),
        "COMP_CWORD": words[-1] if shell == "fish" else str(len(words)),
    }
    return list(filter(None, invoke(environment=environment).stdout.splitlines()))


def test_commands_options_and_choices() -> None:
    assert completed("lay") == ["plain,layout"]
    assert {"plain,restart", "plain,run"} <= set(completed("r"))
    assert completed("run", "--dr") == ["plain,--drain-timeout"]
    assert completed("ps", "--format", "j") == ["plain,json"]
    assert completed("completion", "z") == ["plain,zsh"]
    assert completed("bench", "one") == ["plain,one_to_one"]
    assert completed("run", "gra") == ["file,gra"]


def test_graphs_and_actors(graphs: Graphs) -> None:
    graphs.start()
    assert completed("top", "v") == ["plain,vision"]
    assert completed("restart", "e") == ["plain,edges[0]", "plain,edges"]  # the only graph needs no name
    graphs.start("other")
    assert completed("stop", "") == ["plain,other", "plain,vision"]
    assert completed("restart", "e") == []
    assert completed("restart", "vision", "sc") == ["plain,scale"]
    assert completed("logs", "vision", "scale", "jo") == ["plain,join"]


def test_other_shells() -> None:
    assert completed("lay", shell="zsh")[:2] == ["plain", "layout"]
    assert completed("lay", shell="fish")[0].startswith("plain,layout\t")
    for shell in ("bash", "zsh", "fish"):
        document = json.loads(invoke("completion", shell, "--format", "json").stdout)
        assert f"_SLABWIRE_COMPLETE={shell}_complete" in document["script"]
    assert invoke("completion", environment={"SHELL": "/bin/tcsh"}).exit_code == 2
    assert invoke("completion", environment={"SHELL": "/bin/fish"}).stdout.startswith("function ")


def test_completion_in_a_real_bash(tmp_path: Path) -> None:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    with Terminal(PATH=path, SLABWIRE_RUN_DIR=str(tmp_path)) as terminal:
        terminal.command('eval "$(slabwire completion bash)"')
        terminal.keys("slabwire lay\t")
        terminal.read_until("slabwire layout ")
        terminal.keys("--ki\t")
        terminal.read_until(re.escape("--kind "))
        terminal.keys("bell | head -n 1\n")
        terminal.read_until("bell: ")
