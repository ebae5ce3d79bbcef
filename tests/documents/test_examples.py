"""Each example, run as its first lines say, does what they promise."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import ocr
from llm_files import cache_directory
from read_page_straight import StraightReader

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def run_directory(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Graphs of this test stand apart from any that this user has running. Short: a socket's path has 107 bytes."""
    directory = tmp_path_factory.mktemp("r")
    monkeypatch.setenv("SLABWIRE_RUN_DIR", str(directory))
    return directory


def example(name: str, *arguments: str) -> str:
    """What it printed; fails with all that it said if its status is not 0."""
    script = ROOT / "examples" / name
    result = subprocess.run(
        [sys.executable, script, *arguments],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def straight_text() -> list[str]:
    return StraightReader().page(ocr.sample_page())[0]


@pytest.mark.usefixtures("run_directory")
def test_read_page_reads_what_the_models_read_by_themselves() -> None:
    assert example("read_page.py").splitlines() == straight_text()


def test_the_straight_script_prints_the_text() -> None:
    assert example("read_page_straight.py").splitlines() == straight_text()


@pytest.mark.usefixtures("run_directory")
def test_pipeline_answers_for_every_frame() -> None:
    printed = example("pipeline.py", "40")
    assert printed.startswith("40 frames")
    assert "measured: 40 frames of mean 0.5" in printed


@pytest.mark.usefixtures("run_directory")
def test_embedded_serves_its_own_clients() -> None:
    answers = [json.loads(line.partition(": ")[2]) for line in example("embedded.py").splitlines()]
    assert answers == [{"the": 3, "and": 2, "cat": 1}, {"news": 2, "no": 1, "is": 1}, {"one": 1}]


@pytest.mark.long
def test_the_demo_ends_by_itself_where_there_is_no_terminal(
    run_directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    printed = example("demo_page.py")
    assert all(f"  {line}" in printed for line in straight_text())
    assert (tmp_path / f"slabwire-demo-{os.getuid()}" / "page.png").stat().st_size > 10_000
    for words in ("slabwire run", "slabwire top --once", "detect", "recognise", "reader"):
        assert words in printed
    assert not [each for each in run_directory.iterdir() if (each / "control").exists()]


@pytest.fixture
def chat_folders(run_directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the chat service keeps: a certificate of this test's own, and the converted model of all tests."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setenv("SLABWIRE_CACHE_DIR", str(cache_directory()))


@pytest.mark.usefixtures("chat_folders")
def test_the_chat_demo_answers_and_shows_what_that_took() -> None:
    printed = example("demo_chat.py")
    assert len(re.findall(r"time to first token +\d+ ms, then +\d+\.\d tokens a second", printed)) == 2
    assert re.search(r"question 1: .* of which 0 were cached", printed)
    assert re.search(r"question 2: .* of which [1-9]\d+ were cached", printed)
    for words in ("slabwire run", "llm      0", "curl -N --cacert", "/v1/chat/completions", "slabwire top --once"):
        assert words in printed


@pytest.mark.usefixtures("chat_folders")
def test_the_chat_graph_runs_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "0")
    assert len(example("chat.py").split()) > 5


def readme_code() -> list[str]:
    """The Python blocks of README.md, in order."""
    return re.findall(r"^```python\n(.*?)^```$", (ROOT / "README.md").read_text(), re.DOTALL | re.MULTILINE)


@pytest.mark.usefixtures("run_directory")
def test_the_readme_graph_runs_by_itself_and_serves_its_client(tmp_path: Path) -> None:
    chat, graph, client, *_ = readme_code()
    assert chat in (ROOT / "examples" / "chat.py").read_text()
    script = tmp_path / "vision.py"
    script.write_text(graph)
    alone = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True)
    assert alone.stdout == "(480, 640)\n"
    command: list[str | Path] = [Path(sys.executable).with_name("slabwire"), "run", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        assert any(line.startswith("vision is ready") for line in server.stdout)
        answer = subprocess.run([sys.executable, "-c", client], capture_output=True, text=True, check=False)
        server.send_signal(signal.SIGTERM)
        server.stdout.read()
    assert (answer.stdout, answer.stderr, server.returncode) == ("0\n1\n2\n3\n4\n", "", 0)
