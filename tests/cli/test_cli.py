"""The command line: its root, its errors, and what it says about a graph's code."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import click
import pytest

from fake_graphs import SPEC, Graphs, fake_graphs, fake_targets, invoke
from slabwire.cli import root
from slabwire.cli.exits import Exit
from slabwire.cli.rendering.presentation import bytes_text, count_text, duration_text, micros_text
from slabwire.runtime.errors import Disconnected, GraphError, LoadError, StartError
from slabwire.runtime.launch import planner
from slabwire.runtime.spec import GraphSpec

COMMANDS = [
    "run",
    "plan",
    "validate",
    "graph",
    "ps",
    "top",
    "metrics",
    "trace",
    "logs",
    "stop",
    "restart",
    "move",
    "dead",
    "leases",
    "doctor",
    "layout",
]


@pytest.fixture
def targets(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    return fake_targets(monkeypatch)


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Graphs:
    return fake_graphs(monkeypatch, tmp_path)


def test_help_lists_commands_and_statuses() -> None:
    result = invoke("--help")
    assert result.exit_code == Exit.OK
    assert set(COMMANDS) <= {line.split()[0] for line in result.stdout.splitlines() if line.strip()}
    assert re.search(r"\b3\s+no such graph is running", result.stdout)


def test_help_of_every_command() -> None:
    for name in (
        "run",
        "plan",
        "validate",
        "graph",
        "ps",
        "top",
        "metrics",
        "trace",
        "logs",
        "stop",
        "restart",
        "move",
        "dead",
        "doctor",
        "layout",
    ):
        result = invoke(name, "--help")
        assert result.exit_code == Exit.OK
        assert "--format" in result.stdout, name


def test_every_option_has_a_variable_of_its_name() -> None:
    context = click.Context(root, info_name="slabwire", auto_envvar_prefix="SLABWIRE")
    for name in COMMANDS:
        command = root.get_command(context, name)
        assert command is not None
        for option in (each for each in command.params if isinstance(each, click.Option)):
            flag = max(option.opts, key=len).removeprefix("--")
            assert option.name == flag.replace("-", "_"), f"SLABWIRE_{name}_{option.name} is not named after {flag}"


def test_help_imports_nothing_heavy() -> None:
    program = """
import sys
from slabwire.cli import root
try:
    root(["--help"], prog_name="slabwire")
except SystemExit as end:
    assert end.code == 0, end.code
heavy = {"numpy", "zmq", "rich", "msgpack", "cloudpickle", "onnxruntime", "asyncio"} & set(sys.modules)
sys.exit(f"imported: {sorted(heavy)}" if heavy else 0)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_module_and_version() -> None:
    done = subprocess.run([sys.executable, "-m", "slabwire", "--version"], capture_output=True, text=True, check=True)
    assert re.fullmatch(r"slabwire \d+\.\d+\.\d+\S*\n", done.stdout)


def test_no_command_at_all() -> None:
    result = invoke()
    assert result.exit_code == Exit.USAGE
    assert result.stderr.startswith("Usage: slabwire ")
    assert "validate" in result.stderr


def test_a_typo_in_a_command() -> None:
    result = invoke("plna")
    assert result.exit_code == Exit.USAGE
    assert result.stderr.startswith("error: no command 'plna'; did you mean 'plan'?")


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["plna"], "did you mean 'plan'?"),
        (["run", "x.py", "--drain-timout", "3"], "Did you mean '--drain-timeout'?"),
        (["ps", "--format", "jsn"], "Did you mean 'json'?"),
        (["completion", "zhs"], "Did you mean 'zsh'?"),
        (["new", "eyes", "--template", "minmal"], "Did you mean 'minimal'?"),
        (["keys", "nwe"], "did you mean 'new'?"),
        (["bench", "ping_png"], "did you mean 'ping_pong'?"),
    ],
)
def test_typos_are_answered_with_what_was_meant(words: list[str], meant: str) -> None:
    result = invoke(*words)
    assert result.exit_code == Exit.USAGE
    assert meant in result.stderr.splitlines()[0]


def test_usage_errors_as_json() -> None:
    for words in (["plna", "--format=json"], ["plan", "--format", "json"], ["ps", "--format", "json", "--nothing"]):
        result = invoke(*words)
        assert result.exit_code == Exit.USAGE
        assert result.stdout == ""
        error = json.loads(result.stderr)["error"]
        assert (error["code"], error["status"]) == ("usage", 2)


def test_a_command_that_cannot_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    entries = [
        EntryPoint("serve", "slabwire_nothing.serve:command [inference]", "slabwire.commands"),
        EntryPoint("odd", "os:sep", "slabwire.commands"),
    ]
    monkeypatch.setattr(root, "found", {each.name: each for each in entries})
    result = invoke("serve")
    assert result.exit_code == Exit.FAILED
    assert "No module named 'slabwire_nothing'" in result.stderr
    assert "pip install 'slabwire[inference]'" in result.stderr
    assert "Traceback" not in result.stderr
    assert "is not a click command" in invoke("odd").stderr
    listed = invoke("--help")
    assert listed.exit_code == Exit.OK
    assert "not available" in listed.stdout


def failing(error: BaseException) -> Callable[[str], GraphSpec]:
    def plan_target(_target: str) -> GraphSpec:
        raise error

    return plan_target


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (GraphError("one", "two"), Exit.FAILED),
        (StartError("scale did not become ready"), Exit.NOT_STARTED),
        (Disconnected("gone"), Exit.NOT_RUNNING),
        (RuntimeError("unforeseen"), Exit.INTERNAL),
        (OSError(28, "No space left on device"), Exit.INTERNAL),
        (KeyboardInterrupt(), Exit.INTERRUPTED),
    ],
)
def test_every_error_is_one_message_and_a_status(
    monkeypatch: pytest.MonkeyPatch, error: BaseException, status: Exit
) -> None:
    monkeypatch.setattr(planner, "plan_target", failing(error))
    result = invoke("validate", "x.py")
    assert result.exit_code == status
    assert "Traceback" not in result.stderr
    if status != Exit.INTERRUPTED:
        assert result.stderr.startswith("error: ")


def test_debug_shows_the_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planner, "plan_target", failing(GraphError("bad")))
    for result in (invoke("--debug", "plan", "x.py"), invoke("plan", "x.py", environment={"SLABWIRE_DEBUG": "1"})):
        assert result.exit_code == Exit.FAILED
        assert "Traceback" in result.stderr
        assert result.stderr.endswith("error: bad\n")


def test_output_that_nobody_reads_is_no_error() -> None:
    """As in `slabwire --help | head -1`, with the reader gone before the first byte."""
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as gone:
        done = subprocess.run(
            [sys.executable, "-m", "slabwire", "layout"], stdout=gone, stderr=subprocess.PIPE, check=False
        )
    assert (done.returncode, done.stderr) == (0, b"")


def test_validate(targets: dict[str, Any]) -> None:
    assert invoke("validate", "vision.py").stdout == "vision is valid: 2 actors, 3 instances, 1 edge, 1 port\n"
    document = json.loads(invoke("validate", "vision.py", "--format", "json").stdout)
    assert document == {"graph": "vision", "valid": True, "actors": 2, "instances": 3, "edges": 1, "ports": 1}


def test_validate_names_every_problem(targets: dict[str, Any]) -> None:
    targets["bad.py"] = GraphError("scale.image: no such port", "edges: name taken")
    result = invoke("validate", "bad.py")
    assert result.exit_code == Exit.FAILED
    assert result.stderr == "error: 2 problems\n  - scale.image: no such port\n  - edges: name taken\n"
    error = json.loads(invoke("validate", "bad.py", "--format", "json").stderr)["error"]
    assert error["problems"] == ["scale.image: no such port", "edges: name taken"]
    assert error["code"] == "graph"


def test_plan(targets: dict[str, Any]) -> None:
    result = invoke("plan", "vision.py")
    assert result.stdout.startswith("vision on ")
    assert re.search(r"^scale .* asked for 1, ", result.stdout, re.MULTILINE)
    document = json.loads(invoke("plan", "vision.py", environment={"SLABWIRE_PLAN_FORMAT": "json"}).stdout)
    assert [each["name"] for each in document["workers"]] == ["scale", "edges[0]", "edges[1]"]
    assert document["topology"]["cores"]


def test_graph_as_mermaid(targets: dict[str, Any]) -> None:
    lines = invoke("graph", "vision.py").stdout.splitlines()
    assert lines[0] == "flowchart LR"
    assert '    a0["scale<br/>Scale<br/>1 core"]' in lines
    assert '    a1["edges ×2<br/>Scale"]' in lines
    kind = "UInt8[ndarray, #quot;h w 3#quot;]"
    assert f'    a0 -- "image → find<br/>{kind}<br/>drop_oldest at 8" --> a1' in lines
    assert '    client -. "image" .-> a0' in lines
    assert json.loads(invoke("graph", "vision.py", "--format", "json").stdout)["actors"][0]["name"] == "scale"


def test_a_real_file_and_a_missing_one(tmp_path: Path) -> None:
    (tmp_path / "tiny.py").write_text(
        "import slabwire\n\ndef double(n: int) -> int:\n    return 2 * n\n\n"
        "graph = slabwire.Graph('tiny')\ngraph.expose(graph.add(double))\n"
    )
    assert (
        invoke("validate", str(tmp_path / "tiny.py")).stdout == "tiny is valid: 1 actor, 1 instance, 0 edges, 1 port\n"
    )
    result = invoke("validate", str(tmp_path / "tinny.py"))
    assert result.exit_code == Exit.FAILED
    assert "tiny.py" in result.stderr
    assert "Traceback" not in result.stderr


def test_doctor_on_this_machine(graphs: Graphs) -> None:
    graphs.folder.chmod(0o700)
    result = invoke("doctor", "--format", "json")
    document = json.loads(result.stdout)
    assert result.exit_code == (Exit.OK if document["healthy"] else Exit.FAILED)
    states = {each["name"]: each["state"] for each in document["checks"]}
    assert states["memfd_create"] == states["eventfd"] == states["pidfd"] == states["run directory"] == "ok"
    assert all(each["fix"] for each in document["checks"] if each["state"] != "ok")


def test_doctor_prints_a_fix_for_what_is_broken(graphs: Graphs) -> None:
    graphs.folder.chmod(0o755)
    result = invoke("doctor")
    assert result.exit_code == Exit.FAILED
    assert f"-> chmod 700 {graphs.folder}" in result.stdout
    assert result.stdout.endswith("1 broken\n")


def test_quantities_for_people() -> None:
    assert [bytes_text(each) for each in (0, 1023, 1536, 200 << 20, 3 << 40)] == [
        "0 B",
        "1023 B",
        "1.5 KiB",
        "200 MiB",
        "3.0 TiB",
    ]
    assert [count_text(each) for each in (0, 99999, 123456, 1234567, 2 * 10**9)] == [
        "0",
        "99999",
        "123k",
        "1.2M",
        "2.0G",
    ]
    assert [duration_text(each) for each in (0.04, 75, 3700, 90000)] == ["0.0s", "1m15s", "1h01m", "1d1h"]
    assert [micros_text(each) for each in (None, 0, 12.34, 250, 1500, 2.5e6)] == [
        "-",
        "-",
        "12.3 µs",
        "250 µs",
        "1.5 ms",
        "2.50 s",
    ]


def test_statuses_are_documented_once_each() -> None:
    assert len({each.value for each in Exit}) == len(list(Exit))
    assert all(each.meaning for each in Exit)
    assert isinstance(root, click.Group)


def test_the_graph_of_a_name_that_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    known, graphs = fake_targets(monkeypatch), fake_graphs(monkeypatch, tmp_path)
    known["vision"] = LoadError("there is no module 'vision' here")
    graphs.answers["describe"] = {"spec": SPEC.to_plain()}
    assert "there is no module" in invoke("graph", "vision").stderr
    assert invoke("graph", "vision", "--running").exit_code == Exit.NOT_RUNNING
    graphs.start()
    drawn = invoke("graph", "vision.py").stdout
    assert drawn.startswith("flowchart")
    assert invoke("graph", "vision").stdout == invoke("graph", "vision", "--running").stdout == drawn
    assert json.loads(invoke("graph", "vision", "--format", "json").stdout)["name"] == "vision"
