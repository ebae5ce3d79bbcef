"""The planner imports user files in a process of its own and reports what it finds."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from slabwire.runtime.actor.user_code import construct
from slabwire.runtime.errors import GraphError, LoadError
from slabwire.runtime.launch.planner import plan_target

GOOD = """
from slabwire.runtime.launch.graph import Graph
import helper

def double(n: int) -> int:
    return n * 2

print("hello from the user's file")
graph = Graph("doubling")
graph.expose(graph.add(double))
graph.add(helper.halve)
"""

HELPER = "def halve(n: int) -> float:\n    return n / 2\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "doubles.py").write_text(GOOD)
    (tmp_path / "sub" / "helper.py").write_text(HELPER)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _write(folder: Path, text: str) -> str:
    (folder / "broken.py").write_text(text)
    return "broken.py"


def _load_error(target: str) -> str:
    with pytest.raises(LoadError) as caught:
        plan_target(target)
    return str(caught.value)


@pytest.mark.parametrize("target", ["sub/doubles.py", "sub/doubles.py:graph"])
def test_plan_of_a_file(folder: Path, target: str, capfd: pytest.CaptureFixture[str]) -> None:
    spec = plan_target(target)
    path = str(folder / "sub" / "doubles.py")
    assert spec.name == "doubling"
    double, halve = spec.actors
    assert (double.code.kind, double.code.origin, double.code.search_path) == ("file", path, (str(folder / "sub"),))
    assert (halve.code.kind, halve.code.origin, halve.code.search_path) == ("module", "helper", (str(folder / "sub"),))
    out, err = capfd.readouterr()
    assert (out, err) == ("", "hello from the user's file\n")


def test_plan_of_a_module(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "package").mkdir()
    (folder / "package" / "__init__.py").touch()
    text = GOOD.replace("import helper", "from . import helper")
    (folder / "package" / "vision.py").write_text(text)
    (folder / "package" / "helper.py").write_text(HELPER)
    for target in ("package.vision", "package.vision:graph"):
        code = plan_target(target).actors[0].code
        assert (code.kind, code.origin, code.search_path) == ("module", "package.vision", (str(folder),))
    monkeypatch.syspath_prepend(str(folder))
    assert construct(plan_target("package.vision").actors[1]) is not None


def test_no_descriptor_is_left(folder: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    plan_target("sub/doubles.py")
    assert len(os.listdir("/proc/self/fd")) == before


def test_missing_file(folder: Path) -> None:
    assert _load_error("sub/double.py") == "sub/double.py: no such file; did you mean sub/doubles.py?"
    assert _load_error("doubles.py") == "doubles.py: no such file; did you mean sub/doubles.py?"
    assert "there is no folder" in _load_error("nowhere/doubles.py")
    assert _load_error("nothing_like_it") == "there is no module 'nothing_like_it' here or among those installed"


def test_no_graph_and_several(folder: Path) -> None:
    target = _write(folder, "x = 1\n")
    assert _load_error(target) == 'broken.py has no slabwire.Graph at its top level; define one: graph = Graph("name")'
    assert (
        _load_error(f"{target}:x") == "broken.py:x: 'x' is int, no slabwire.Graph; the graphs of this module are: none"
    )
    assert "'y' is not there" in _load_error(f"{target}:y")
    several = "from slabwire.runtime.launch.graph import Graph\na, b = Graph('a'), Graph('b')\n"
    target = _write(folder, several)
    assert _load_error(target) == "broken.py has several graphs, so say which: broken.py:a, broken.py:b"


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("\nraise ValueError('no luck')\n", "ValueError: no luck ({path}:2)"),
        ("x = (\n", "SyntaxError: '(' was never closed ({path}:1)"),
        ("import sys\nsys.exit('not today')\n", "SystemExit: not today ({path}:2)"),
        ("import not_installed\n", "ModuleNotFoundError: No module named 'not_installed' ({path}:1)"),
    ],
)
def test_file_that_cannot_be_imported(folder: Path, text: str, error: str) -> None:
    with pytest.raises(LoadError) as caught:
        plan_target(_write(folder, text))
    path = folder / "broken.py"
    assert str(caught.value) == f"{path} could not be imported: {error.format(path=path)}"
    assert "broken.py" in caught.value.detail


def test_errors_of_the_graph_keep_their_class_and_place(folder: Path) -> None:
    text = GOOD.replace("import helper", "").replace("graph.add(helper.halve)", "graph.add(double)")
    with pytest.raises(GraphError) as caught:
        plan_target(_write(folder, text))
    place = f"{folder / 'broken.py'}:11"
    assert caught.value.problems == (
        f"{place}: graph 'doubling' has an actor 'double' already; give this one another with name=",
    )
    assert "Traceback" in caught.value.detail
    with pytest.raises(GraphError, match="graph name 'not good' must consist"):
        plan_target(
            _write(
                folder,
                GOOD.replace("doubling", "not good")
                .replace("helper.halve", "lambda x: x, name='x'")
                .replace("import helper", ""),
            )
        )


def test_graph_that_runs_while_it_is_imported(folder: Path) -> None:
    text = GOOD.replace("import helper", "").replace("graph.add(helper.halve)", "graph.run()")
    with pytest.raises(GraphError, match=r"put graph\.run\(\)"):
        plan_target(_write(folder, text))


def test_file_that_ends_the_process(folder: Path) -> None:
    assert "ended with status 7 before it had a graph" in _load_error(_write(folder, "import os\nos._exit(7)\n"))


def test_threads_of_the_file_do_not_hold_the_planner(folder: Path) -> None:
    text = GOOD.replace("import helper", "import threading").replace(
        "graph.add(helper.halve)", "threading.Thread(target=threading.Event().wait).start()"
    )
    assert plan_target(_write(folder, text)).name == "doubling"
