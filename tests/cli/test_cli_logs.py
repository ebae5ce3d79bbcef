"""`slabwire logs`, and the reading of log files."""

from __future__ import annotations

import json
import time
from pathlib import Path

import click
import pytest

from fake_graphs import Graphs, fake_graphs, invoke
from slabwire.cli.exits import Exit
from slabwire.cli.rendering.logfile import Line, LogFile, date, stamp_of
from slabwire.cli.rendering.paint import Painter, color_of


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Graphs:
    return fake_graphs(monkeypatch, tmp_path)


def test_logs_in_order_of_time(graphs: Graphs) -> None:
    graphs.start()
    graphs.log("scale", "2026-01-31T12:00:00.000002Z two", "printed after two", "2026-01-31T12:00:00.000004Z four")
    graphs.log("supervisor", "2026-01-31T12:00:00.000001Z one", "2026-01-31T12:00:00.000003Z three")
    lines = invoke("logs").stdout.splitlines()
    assert [line.split()[-1] for line in lines] == ["one", "two", "two", "three", "four"]
    assert lines[2] == "scale | printed after two"
    assert invoke("logs", "vision", "scale").stdout.splitlines()[1] == "printed after two"
    document = json.loads(invoke("logs", "--format", "json").stdout.splitlines()[0])
    assert document["text"] == "one"
    assert document["worker"] == "supervisor"


def test_logs_filtered(graphs: Graphs) -> None:
    graphs.start()
    old, new = (time.strftime("%Y-%m-%dT%H:%M:%S.000000Z", time.gmtime(time.time() - ago)) for ago in (3600, 5))
    graphs.log("scale", f"{old} old error", "below old", f"{new} new error", f"{new} fine")
    assert [line[-9:] for line in invoke("logs", "--since", "10m").stdout.splitlines()] == ["new error", "000Z fine"]
    assert len(invoke("logs", "--since", "2h").stdout.splitlines()) == 4
    assert len(invoke("logs", "--grep", r"err.r$").stdout.splitlines()) == 2
    for words in (["--since", "soon"], ["--grep", "("]):
        assert invoke("logs", *words).exit_code == Exit.USAGE


def test_the_last_lines(graphs: Graphs) -> None:
    graphs.start()
    graphs.log("scale", *(f"2026-01-31T12:00:00.00000{n}Z line {n}" for n in range(8)))
    graphs.log("edges[0]", "2026-01-31T12:00:00.000009Z last")
    assert [line.split()[-1] for line in invoke("logs", "--tail", "2").stdout.splitlines()] == ["7", "last"]
    assert invoke("logs", "--tail", "1", "--grep", "line").stdout.endswith("line 7\n")
    assert invoke("logs", "--tail", "0").stdout == ""
    assert invoke("logs", "--tail", "-1").exit_code == Exit.USAGE


def test_colours_in_a_terminal_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    line, other = Line("scale", "2026-01-31T12:00:00Z ERROR bad"), Line("a", "fine")
    assert Painter().line(line) == "scale | 2026-01-31T12:00:00Z ERROR bad"
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.delenv("NO_COLOR", raising=False)
    painter = Painter()
    assert click.unstyle(painter.line(line)) == "scale | 2026-01-31T12:00:00Z ERROR bad"
    assert painter.line(line).count("\x1b[31m") == 1
    assert click.unstyle(painter.line(other)) == "a     | fine"
    assert painter.line(other).startswith("\x1b[")
    assert painter.line(other, alone=True) == "fine"
    monkeypatch.setenv("NO_COLOR", "1")
    assert Painter().line(other) == "a | fine"
    assert color_of("scale") == color_of("scale") != "red"


def test_logs_of_replicas_and_of_actors_in_a_shared_worker(graphs: Graphs) -> None:
    graphs.start()
    for worker in ("edges[0]", "edges[1]", "shared", "scale"):
        graphs.log(worker, f"from {worker}")
    assert invoke("logs", "vision", "edges").stdout == "edges[0] | from edges[0]\nedges[1] | from edges[1]\n"
    assert invoke("logs", "vision", "edges[1]").stdout == "from edges[1]\n"
    assert invoke("logs", "vision", "draw").stdout == "from shared\n"
    typo = invoke("logs", "vision", "scal")
    assert typo.exit_code == Exit.FAILED
    assert "did you mean 'scale'?" in typo.stderr


def test_logs_of_nothing(graphs: Graphs) -> None:
    graphs.start()
    result = invoke("logs", "visoin")
    assert result.exit_code == Exit.NOT_RUNNING
    assert "did you mean 'vision'?" in result.stderr


def test_following_ends_with_the_graph(graphs: Graphs, monkeypatch: pytest.MonkeyPatch) -> None:
    graphs.start()
    graphs.log("scale", "first")
    steps = iter(["second", "from a new worker", "last words"])

    def step(_seconds: float) -> None:
        text = next(steps)
        graphs.log("late" if "new" in text else "scale", text)
        if text == "last words":
            graphs.statuses.clear()

    monkeypatch.setattr("slabwire.cli.commands.logs.LIVENESS_EVERY_S", 0.0)
    monkeypatch.setattr("slabwire.cli.commands.logs.sleep", step)
    result = invoke("logs", "--follow")
    assert result.stdout.splitlines() == [
        "scale | first",
        "scale | second",
        "late | from a new worker",
        "scale | last words",
    ]
    assert result.stderr == "graph 'vision' has ended\n"


def test_a_log_is_read_in_whole_lines_and_outlives_its_name(tmp_path: Path) -> None:
    path = tmp_path / "scale.log"
    path.write_bytes(b"one\ntw")
    log = LogFile(path)
    assert [line.text for line in log.read()] == ["one"]
    with path.open("ab") as stream:
        stream.write(b"o\n\xff\n")
    assert [line.text for line in log.read()] == ["two", "\ufffd"]
    path.write_bytes(b"again\n")  # cut
    assert [line.text for line in log.read()] == ["again"]
    with path.open("ab") as stream:
        stream.write(b"end")
    path.rename(tmp_path / "scale.log.1")
    assert [line.text for line in log.read(final=True)] == ["end"]
    path.write_bytes(b"fresh\n")  # another file of the same name
    assert [line.text for line in log.read()] == ["fresh"]
    log.close()


def test_lines_without_a_stamp_take_that_of_their_neighbour() -> None:
    texts = ["before all", "2026-01-31T12:00:00.5Z one", "after one", "2026-99-99T12:00:00Z no date"]
    lines = list(date((Line("a", text) for text in texts), None, 5.0))
    assert {line.unix_s for line in lines} == {stamp_of("2026-01-31T12:00:00.5Z x")}
    assert [line.unix_s for line in date([Line("a", "alone")], None, 5.0)] == [5.0]
    assert lines[1].body == "one"
