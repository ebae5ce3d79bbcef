"""Code that no worker can import: of a prompt, a script's guard, a test's function, a notebook."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from slabwire import Actor, Graph

DEFINES = """
from slabwire import Actor, Graph
factor = 3
class Times(Actor):
    def by(self, n: int) -> int:
        return n * factor

def closure(k):
    def plus(n: int) -> int:
        return n + k
    return plus

numbers = (n for n in "abc")
def uses(n: int) -> str:
    return next(numbers)

def graph_of(name):
    graph = Graph(name)
    graph.expose(graph.add(Times).by, graph.add(closure(100)), graph.add(lambda n: n - 1, name="lam"))
    return graph
"""
RUNS = """
if __name__ == "__main__":
    with graph_of(NAME).run() as running:
        print([running.client.call(port, 5) for port in ("times.by", "plus.plus", "lam.apply")])
"""
REFUSED = """
if __name__ == "__main__":
    bad = Graph("bad")
    _ = bad.add(uses)
    try:
        bad.validate()
    except ValueError as error:
        print(str(error).partition(" to a worker")[0])
"""
ANSWERS = "[15, 105, 4]"
REFUSAL = "actor 'uses': global 'numbers' cannot travel"


@pytest.fixture(scope="module", autouse=True)
def run_directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLABWIRE_RUN_DIR", str(tmp_path_factory.mktemp("run")))
        yield


@pytest.mark.long
def test_code_of_main_works_however_python_was_started(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(DEFINES + RUNS.replace("NAME", "'script'"))
    # A prompt takes a block as ended at an empty line.
    typed = (DEFINES + RUNS.replace("NAME", "'prompt'") + REFUSED).replace("\n\ndef", "\n\n\ndef") + "\n"
    words = {
        "command": (["-c", DEFINES + RUNS.replace("NAME", "'command'") + REFUSED], ""),
        "script": ([str(script)], ""),
        "standard input": (["-"], DEFINES + RUNS.replace("NAME", "'input'") + REFUSED),
        "prompt": (["-i", "-q"], typed),
    }
    running = {
        name: (subprocess.Popen([sys.executable, *way], stdin=-1, stdout=-1, stderr=-1, text=True), given)
        for name, (way, given) in words.items()
    }
    said = {}
    for name, (process, given) in running.items():
        with process:
            said[name] = process.communicate(given)
    lines = {name: [line for line in out.splitlines() if line[:1] in "[a"] for name, (out, _) in said.items()}
    assert lines == {name: [ANSWERS] if name == "script" else [ANSWERS, REFUSAL] for name in words}, said


def test_what_a_test_defines_inside_works() -> None:
    offset = 7

    class Local(Actor):
        """Of no module's top level."""

        def __init__(self, more: Any) -> None:
            self.more = more

        def add(self, n: int) -> int:
            return n + offset + int(self.more(n))

    graph = Graph("inside")
    graph.expose(graph.add(Local, more=lambda n: 1000 * n).add)
    with graph.run() as running:
        assert running.client.call("local.add", 1) == 1008


CELLS = [
    DEFINES,
    RUNS.replace("NAME", "'cells'"),
    "async with graph_of('awaited').run() as running:\n    print(await running.client.call('times.by', 6))",
    "with graph_of('here').run(in_process=True) as running:\n    print(running.client.call('times.by', 7))",
    "async with graph_of('both').run(in_process=True) as it:\n    print(await it.client.call('lam.apply', 7))",
    REFUSED,
]


NOTEBOOK = """
import json, sys
import nbformat
from nbclient import NotebookClient
notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(each) for each in json.load(sys.stdin)])
NotebookClient(notebook, timeout=60, kernel_name="python3").execute()
for cell in notebook.cells:
    for output in cell.outputs:
        print(output.get("text", "").strip())
"""


@pytest.mark.long
def test_code_of_a_notebook_works() -> None:
    pytest.importorskip("nbclient")
    command = [sys.executable, "-c", NOTEBOOK]
    ended = subprocess.run(command, input=json.dumps(CELLS), capture_output=True, text=True, check=True)
    assert ended.stdout.splitlines() == [ANSWERS, "18", "21", "6", REFUSAL]
