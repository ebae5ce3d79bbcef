"""The picture of `slabwire top`, and the terminal that it is drawn on."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from fake_graphs import a_status, a_worker, an_actor
from slabwire import Graph
from slabwire.cli.commands.top import View
from slabwire.cli.exits import Exit
from slabwire.cli.rendering.board import COLUMNS, actor_table, fitting, lines_of, remember, spark
from slabwire.cli.rendering.sample import Sample
from slabwire.runtime.launch.running import Running
from terminal import Terminal

NEEDED = ["actor", "core", "rate/s", "queue", "p50", "p99", "busy", "spin/park", "↻", "leases", "memory"]


def drawn(status: dict[str, object], room: int) -> list[str]:
    from rich.console import Console

    console = Console(width=room, color_system=None)
    with console.capture() as capture:
        console.print(actor_table(lines_of(Sample(status, 1000.0)), room))
    return capture.get().splitlines()


def test_eighty_columns_have_room_for_what_matters() -> None:
    busy = {"handled": 10**6, "p50_us": 123.4, "p99_us": 99_000, "waiting": 999, "busy_s": 900, "leases": 12}
    workers = [a_worker(f"recogniser[{n}]", an_actor(f"recogniser[{n}]", **busy), pss_bytes=1 << 30) for n in range(3)]
    status = a_status(workers=workers, started_unix_s=0.0)
    lines = drawn(status, 80)
    assert lines[0].split()[: len(NEEDED)] == NEEDED
    assert max(map(len, lines)) <= 80
    assert not any("…" in line for line in lines)
    wide = drawn(status, 120)
    assert {"CPU", "failed", "handled"} <= set(wide[0].split())
    assert max(map(len, wide)) <= 120


def test_what_ranks_higher_goes_first() -> None:
    assert fitting([3, 4, 5], [0, 2, 1], 100) == [0, 1, 2]
    assert fitting([3, 4, 5], [0, 2, 1], 13) == [0, 2]
    assert fitting([3, 9, 1], [0, 1, 2], 8) == [0]  # the third would fit, but is worth less than the second
    assert sorted(each.rank for each in COLUMNS) == sorted({each.rank for each in COLUMNS})


def test_what_a_worker_has_once_stands_once() -> None:
    status = a_status(workers=[a_worker("shared", an_actor("one"), an_actor("two"), restarts=4, state="restarting")])
    rows = [line.split() for line in drawn(status, 200)[2:]]
    assert (rows[0][:4], "4" in rows[0]) == (["one", "in", "shared", "(restarting)"], True)
    assert "4" not in rows[1]


def test_sparks() -> None:
    assert spark([0, 0]) == "▁▁"
    assert spark([0, 5, 10]) == "▁▅█"
    trends: dict[str, list[float]] = {}
    for handled in range(30):
        status = a_status(workers=[a_worker("a", an_actor("a", handled=handled))], started_unix_s=0.0)
        remember(trends, Sample(status, 1.0))
    assert trends["a"] == [float(each) for each in range(14, 30)]


def test_keys() -> None:
    view = View()
    assert [view.press(key) for key in ("", "s", "e", "p", "x", "q")] == [True, True, True, True, True, False]
    assert (view.sort, view.edges, view.paused) == ("rate", True, True)
    for _ in range(4):
        view.press("s")
    assert view.sort == "graph"


def echo(n: int) -> int:
    return n


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    with TemporaryDirectory(prefix="sw-", dir="/tmp") as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLABWIRE_RUN_DIR", folder)
        graph = Graph("seen")
        graph.expose(graph.add(echo))
        with graph.run() as started:
            yield started


def test_a_live_top_gives_its_terminal_back(running: Running, tmp_path: Path) -> None:
    with Terminal(columns=100) as terminal:
        before = terminal.settings()
        terminal.command(f"alias top='{sys.executable} -m slabwire top seen'")
        terminal.command("top")
        terminal.read_until(r"seen is ready(.|\n)*sort \(graph\)")
        terminal.keys("s")
        terminal.read_until(r"sort \(rate\)")
        terminal.keys("\x1b[Ap")  # an arrow means nothing
        terminal.read_until(r"p go on")
        terminal.keys("\x1a")
        terminal.read_until("Stopped")
        assert terminal.settings() == before
        terminal.command("fg")
        terminal.read_until("p go on")
        terminal.keys("q")
        terminal.read_until(r"\$ ")  # what is typed before it is top's
        assert terminal.status() == Exit.OK
        assert terminal.settings() == before
        terminal.command("top")
        terminal.read_until("seen is ready")
        terminal.keys("\x03")
        terminal.read_until(r"\$ ")
        assert terminal.status() == Exit.OK
        assert terminal.settings() == before
        terminal.command("top --format json --interval 0.1 | head -n 2 | tail -n 1")
        assert json.loads(terminal.read_until(r"\{.*\}\n")[0])["state"] == "ready"


def test_top_ends_with_its_graph(running: Running) -> None:
    with Terminal() as terminal:
        before = terminal.settings()
        terminal.command(f"{sys.executable} -m slabwire top seen --interval 0.1")
        terminal.read_until("seen is ready")
        running.kill()
        found = terminal.read_until(r"error: .*seen.*")[0]
        assert re.search("has ended|no graph", found)
        terminal.read_until(r"\$ ")
        assert terminal.status() == Exit.NOT_RUNNING
        assert terminal.settings() == before
