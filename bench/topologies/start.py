"""How long it takes until something can begin: the package imported, a graph ready for calls."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import click

from ..harness.contestant import BenchError
from ..harness.measure import Case, Cell
from ..harness.report import Bar, Report
from ..harness.settings import Settings, command_of

_ACTORS, _QUICK_ACTORS = 10, 2
_READY_WITHIN_S = 2.0
_MOST_OF_IMPORTS = 1.3
_IMPORTS = {
    "libraries": "import numpy, zmq, asyncio",
    "slabwire": "import slabwire",
    "face": "from slabwire import Actor, Graph, connect",
}
_GRAPH = """
import slabwire

class Small(slabwire.Actor):
    def add(self, n: int) -> int:
        return n + 1

graph = slabwire.Graph("{name}")
actors = [graph.add(Small, name=f"small{{number}}") for number in range({actors})]
for one, other in zip(actors, actors[1:]):
    graph.connect(one, other)
graph.expose(actors[0])
"""


def measure_start(settings: Settings) -> Report:
    """Imports, each in a process of its own, and `slabwire run` of a graph of 10 small actors until it is ready.

    From the start of the process to its end, and to the event "ready". The machine's caches of files are warm.
    """
    actors = settings.few(_ACTORS, _QUICK_ACTORS)
    importing, running = Case("import", 0), Case(f"{actors} actors", actors)
    cells = [*(Cell(importing, name) for name in _IMPORTS), Cell(running, "run")]
    with TemporaryDirectory(prefix="slabwire-bench-") as folder:
        file = Path(folder) / "small.py"
        file.write_text(_GRAPH.format(name=f"bench-start-{os.getpid()}", actors=actors))

        def visit(cell: Cell) -> tuple[list[float], int]:
            took = _run(file) if cell.contestant == "run" else _import(_IMPORTS[cell.contestant])
            return [took / 1e3], 1

        for cell in cells:  # the first start finds nothing in the machine's caches
            visit(cell)
        results = settings.measure(cells, visit)
    titles = {**_IMPORTS, "run": "slabwire run"}
    report = Report("start", "to the end of the import, or until the graph is ready", results, titles, ("libraries",))
    report.bars.append(Bar("slabwire run until ready, s", results[cells[-1]].median / 1e6, most=_READY_WITHIN_S))
    ratio = report.ratio(importing, "slabwire", "libraries")
    if ratio is not None:
        report.bars.append(Bar(f"import slabwire / {_IMPORTS['libraries']}", ratio, most=_MOST_OF_IMPORTS))
    return report


def _import(statement: str) -> int:
    began = time.monotonic_ns()
    subprocess.run([sys.executable, "-c", statement], check=True)
    return time.monotonic_ns() - began


def _run(file: Path) -> int:
    began = time.monotonic_ns()
    command = [sys.executable, "-m", "slabwire", "run", str(file), "--format", "json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        took = next((time.monotonic_ns() - began for line in process.stdout if _is_ready(line)), 0)
        process.send_signal(signal.SIGTERM)
        process.communicate()
    if process.returncode or not took:
        raise BenchError(f"`slabwire run` ended with {process.returncode}")
    return took


def _is_ready(line: str) -> bool:
    return bool(json.loads(line)["event"] == "ready")


command: click.Command = command_of(measure_start, rounds=15)
