"""The picture of `slabwire top`, and the terminal that it is drawn on."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from fake_graphs import a_status, a_worker, an_actor
from front_door import Counts, Door
from slabwire import Graph
from slabwire.actors.ingress import Ingress
from slabwire.cli.commands.top import View
from slabwire.cli.exits import Exit
from slabwire.cli.rendering.board import COLUMNS, actor_table, fitting, lines_of, remember, spark
from slabwire.cli.rendering.ingress_board import ingress_table, silent_ingresses
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


# -- ingresses --------------------------------------------------------------------------------------------------------


def a_replica(number: int, **changes: Any) -> dict[str, Any]:
    counts = {"connections": 3, "accepted": 5, "share": 0.5, "requests": 4}
    ways = {"streams": {"direct": 2, "asgi": 1}, "ways": {"direct": 20, "asgi": 7}}
    plain = {"replica": number, "stage": "serving", "pid": 1, **counts, **ways}
    ages = {"handshaken": {"full": 6, "resumed": 9}, "certificate_ends": 1000.0 + 30.5 * 86400, "key_since": 990.0}
    return {**plain, **ages, **changes}


def told(*replicas: dict[str, Any], unknown: str = "") -> dict[str, Any]:
    return {"actor": "door", "unknown": unknown, "replicas": replicas}


def drawn_ingresses(*of_each: dict[str, Any], room: int = 200) -> list[list[str]]:
    from rich.console import Console

    console = Console(width=room, color_system=None)
    with console.capture() as capture:
        console.print(ingress_table(of_each, 1000.0, room))
    return [line.split() for line in capture.get().splitlines()]


def test_a_line_for_each_replica_of_an_ingress() -> None:
    away = a_replica(1, stage="away", key_since=None, certificate_ends=None)
    heads, _, first, second = drawn_ingresses(told(a_replica(0), away))
    assert " ".join(heads) == ("ingress connections share streams requests full resumed by ASGI ticket key certificate")
    assert first == ["door[0]", "3", "50%", "3", "4", "6", "9", "7", "10.0s", "30d"]
    assert second == ["door[1]", "(away)", "3", "50%", "3", "4", "6", "9", "7", "-", "-"]
    assert drawn_ingresses(told(a_replica(0)))[2][0] == "door"
    assert drawn_ingresses(told(a_replica(0)), room=40)[0] == ["ingress", "connections", "streams", "requests"]


def test_ingresses_that_say_nothing() -> None:
    silent = told(unknown="it hangs")
    assert ingress_table([silent], 1000.0, 80) is None
    assert ingress_table([], 1000.0, 80) is None
    assert silent_ingresses([silent, told(a_replica(0))]) == ["door: it hangs"]


def serving(folder: Path, *, exposed: bool) -> Graph:
    graph = Graph("served")
    graph.add(Counts, name="counts", folder=str(folder))
    ingress = graph.add(Ingress, name="ingress", models={"counter": "counts"}, port=0, replicas=2)
    if exposed:
        graph.expose(ingress.describe)
    return graph


def top(*words: str) -> str:
    command = [sys.executable, "-m", "slabwire", "top", "served", "--once", *words]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_top_asks_ingresses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLABWIRE_RUN_DIR", str(tmp_path / "run"))
    monkeypatch.setenv("SLABWIRE_STATE_DIR", str(tmp_path / "state"))
    with serving(tmp_path, exposed=True).run() as running:
        door = Door(running)
        with closing(door.chat()[0]):
            (document,) = json.loads(top("--format", "json"))["ingresses"]
            assert (document["actor"], document["unknown"]) == ("ingress", "")
            assert sum(each["streams"]["direct"] for each in document["replicas"]) == 1
            assert sum(each["connections"] for each in document["replicas"]) == 1
        lines = top().splitlines()
        (at,) = (number for number, line in enumerate(lines) if line.startswith("ingress  "))
        assert [line.split()[0] for line in lines[at + 2 : at + 4]] == ["ingress[0]", "ingress[1]"]
        assert lines[-1].startswith("supervisor: ")


def test_top_says_how_an_ingress_may_be_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLABWIRE_RUN_DIR", str(tmp_path / "run"))
    monkeypatch.setenv("SLABWIRE_STATE_DIR", str(tmp_path / "state"))
    with serving(tmp_path, exposed=False).run():
        assert "ingress: graph.expose(ingress.describe) lets it be asked" in top().splitlines()


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
