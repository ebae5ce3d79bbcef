"""Commands that ask a running graph, whose part is played by a fake."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fake_graphs import Graphs, a_status, a_worker, an_actor, fake_graphs, invoke
from slabwire.cli.exits import Exit
from slabwire.cli.rendering.sample import Sample
from slabwire.runtime.errors import Disconnected


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Graphs:
    return fake_graphs(monkeypatch, tmp_path)


def test_ps(graphs: Graphs) -> None:
    assert invoke("ps").stdout.startswith("no graph is running")
    graphs.start()
    graphs.start("other", state="starting", not_ready=[{"actor": "load[0]", "reason": "still in on_start"}])
    lines = invoke("ps").stdout.splitlines()
    assert lines[0].split()[:4] == ["graph", "pid", "state", "up"]
    assert next(line for line in lines if line.startswith("vision")).split()[2:7] == ["ready", "1m40s", "3", "3", "2"]
    assert "load[0]: still in on_start" in next(line for line in lines if line.startswith("other"))
    document = json.loads(invoke("ps", "--format", "json").stdout)
    assert [each["graph"] for each in document["graphs"]] == ["other", "vision"]


def test_ps_shows_what_is_wrong_also_on_a_narrow_screen(graphs: Graphs, monkeypatch: pytest.MonkeyPatch) -> None:
    reason = "ended with status 3: actor 'scale': /home/me/vision.py could not be imported (/home/me/vision.py:3)"
    graphs.start("a-rather-long-name-of-a-graph", not_ready=[{"actor": "scale", "reason": reason}])
    graphs.start()
    for width in (40, 60, 80, 120):
        monkeypatch.setattr("slabwire.cli.commands.ps.console", partial(SimpleNamespace, is_terminal=True, width=width))
        *table, last = invoke("ps").stdout.splitlines()
        assert last == f"a-rather-long-name-of-a-graph: scale: {reason}"
        assert max(map(len, table)) <= width
        assert {"graph", "state"} <= set(table[0].split()) or width == 40


def test_ps_names_some_of_many_that_start(graphs: Graphs) -> None:
    waiting = [{"actor": f"a{number}", "reason": "starting"} for number in range(9)]
    graphs.start(not_ready=[*waiting, {"actor": "b", "reason": "killed by SIGKILL"}])
    assert "a0, a1, a2 and 6 more: starting; b: killed by SIGKILL" in invoke("ps").stdout


def test_ps_shows_a_graph_that_does_not_answer(graphs: Graphs) -> None:
    graphs.start()
    graphs.answers["status"] = Disconnected("vision does not answer")
    result = invoke("ps")
    assert result.exit_code == Exit.OK
    assert "no answer" in result.stdout


def test_the_only_graph_needs_no_name(graphs: Graphs) -> None:
    missing = invoke("top", "--once")
    assert missing.exit_code == Exit.NOT_RUNNING
    assert "start one with `slabwire run FILE`" in missing.stderr
    graphs.start()
    assert invoke("top", "--once").exit_code == Exit.OK
    graphs.start("other")
    several = invoke("top", "--once")
    assert several.exit_code == Exit.USAGE
    assert "other, vision" in several.stderr
    typo = invoke("top", "visoin", "--once")
    assert typo.exit_code == Exit.NOT_RUNNING
    assert "did you mean 'vision'?" in typo.stderr


def test_top_once(graphs: Graphs) -> None:
    graphs.start()
    lines = invoke("top", "--once").stdout.splitlines()
    assert lines[0].startswith("vision is ready, up 1m40s, 2 clients, 3.0 MiB shared")
    heads = "actor core rate/s queue in flight p50 p99 busy spin/park ↻ leases outbox memory slabs CPU handled failed"
    assert lines[2].split()[: len(heads.split())] == heads.split()
    (scale,) = (line.split() for line in lines if line.startswith("scale "))
    assert scale[:12] == ["scale", "0", "5.0", "0", "0", "12.5µs", "1.5ms", "50%", "0/0", "3", "0", "0"]
    assert scale[12:17] == ["0B", "0B/0B", "0%", "500", "0"]
    assert any(line.startswith("join in shared ") for line in lines)
    assert [line.split()[1] for line in lines if line.startswith("edges[0]")] == ["1,3"]
    assert lines[-1] == "supervisor: pid 77, CPU 1%, 20.0 MiB; nursery: pid 78, 10.0 MiB"
    document = json.loads(invoke("top", "--once", "--format", "json").stdout)
    assert document["workers"][0]["actors"][0]["rate_per_s"] == pytest.approx(5, rel=0.05)
    assert document["supervisor"]["cpu"] == pytest.approx(0.01, rel=0.05)
    gateway = {"pid": 0, "state": "restarting", "restarts": 2, "last_exit": "hung and was killed", "listen": []}
    graphs.start("remote", gateway=gateway)
    assert invoke("top", "remote", "--once").stdout.splitlines()[-1].endswith("; gateway: pid -, restarting, ↻ 2")
    graphs.start("crowded", gateway={**gateway, "pid": 7, "state": "silent", "restarts": 0, "turned_out": 3})
    last = invoke("top", "crowded", "--once").stdout.splitlines()[-1]
    assert last.endswith("; gateway: pid 7, silent, 3 turned out")


def an_edge(source: str, **changes: Any) -> dict[str, Any]:
    counts = "full paused waiting sent high_water blocked rejected dropped_newest dropped_oldest expired refused"
    keys = f"{counts} oldest_s blocked_s"
    plain = {"source": source, "target": "edges.find", "capacity": 8, "when_full": "block", "lanes": 1}
    return {**plain, **dict.fromkeys(keys.split(), 0), **changes}


def test_top_shows_edges_that_have_something_to_tell(graphs: Graphs) -> None:
    quiet, once = an_edge("a.out", sent=100, high_water=3), {"blocked": 5, "blocked_s": 2.5, "high_water": 8}
    told = [an_edge("b.out", lanes=2, paused=1, **once), an_edge("c.out", dropped_newest=2, dropped_oldest=3), quiet]
    graphs.start(edges=told)
    lines = invoke("top", "--once").stdout.splitlines()
    (head,) = (line for line in lines if line.startswith("edge "))
    assert "when full" in head
    (row,) = (line.split() for line in lines if line.startswith("b.out -> "))
    assert row == [
        "b.out",
        "->",
        "edges.find",
        "in",
        "2",
        "lanes,",
        "1",
        "paused",
        "block",
        *["0", "0", "0.0s", "8", "8", "5", "2.5s", "0", "0", "0", "0"],
    ]
    (row,) = (line.split() for line in lines if line.startswith("c.out -> "))
    assert row[3:] == ["block", *["0", "0", "0.0s", "0", "8", "0", "0.0s", "0", "5", "0", "0"]]
    assert not any(line.startswith("a.out") for line in lines)
    assert any(
        line.startswith("a.out -> edges.find ") for line in invoke("top", "--once", "--edges").stdout.splitlines()
    )
    assert json.loads(invoke("top", "--once", "--format", "json").stdout)["edges"] == told


def test_live_top_ends_with_ctrl_c(graphs: Graphs) -> None:
    graphs.start()
    looks: list[int] = []

    def status() -> dict[str, Any]:
        looks.append(1)
        if len(looks) == 3:
            raise KeyboardInterrupt
        return a_status()

    graphs.answers["status"] = status
    result = invoke("top", "--interval", "0.1", "--format", "json")
    assert len(result.stdout.splitlines()) == 2
    assert result.exit_code == Exit.OK


def test_rates_are_those_between_two_looks() -> None:
    def look(handled: int, busy_s: float, at: float, previous: Sample | None) -> Sample:
        workers = [a_worker("a", an_actor("a", handled=handled, busy_s=busy_s), cpu_s=busy_s)]
        return Sample(a_status(workers=workers, started_unix_s=0.0), at, previous)

    first = look(1000, 10.0, 1000.0, None)
    second = look(1500, 11.0, 1002.0, first)
    assert (first.rate("a"), second.rate("a")) == (1.0, 250.0)
    assert (second.busy("a"), second.cpu(second.status["workers"][0])) == (0.5, 0.5)
    restarted = look(30, 0.5, 1003.0, second)
    assert restarted.rate("a") == 30.0


def test_stop_asks_and_waits(graphs: Graphs) -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    assert child.stdin is not None
    graphs.start(pid=child.pid)
    graphs.answers["stop"] = lambda: child.communicate(b"\n") and {}
    result = invoke("stop", "--drain-timeout", "2.5")
    assert result.exit_code == Exit.OK
    assert re.fullmatch(rf"vision \(pid {child.pid}\) stopped in \d+\.\d s\n", result.stdout)
    assert graphs.asked[-1] == ("vision", "stop", {"drain_timeout_s": 2.5, "wait": True, "within_s": 12.5})


@pytest.mark.parametrize(
    ("outcome", "words"),
    [
        ({"cut_off": {"llm": 2, "cache": 1}}, "3 messages were cut off (llm 2, cache 1)"),
        ({"cut_off": {"llm": 1}}, "1 message was cut off (llm 1)"),
        (
            {"failed": {"llm": "killed by SIGSEGV while it stopped"}},
            "llm killed by SIGSEGV while it stopped; `slabwire logs vision --crash` tells more",
        ),
    ],
)
def test_stop_says_what_was_cut_off(graphs: Graphs, outcome: dict[str, Any], words: str) -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    graphs.start(pid=child.pid)
    graphs.answers["stop"] = lambda: child.communicate(b"\n") and outcome
    result = invoke("stop")
    assert result.exit_code == Exit.UNCLEAN
    assert re.fullmatch(rf"vision \(pid \d+\) stopped in \d+\.\d s: {re.escape(words)}\n", result.stdout)


def test_stop_without_waiting(graphs: Graphs) -> None:
    graphs.start()
    assert invoke("stop", "--no-wait").stdout == f"vision (pid {os.getpid()}) is stopping\n"
    assert graphs.asked[-1] == ("vision", "stop", {})
    invoke("stop", "--no-wait", "--now")
    assert graphs.asked[-1] == ("vision", "stop", {"drain_timeout_s": 0.0})


def test_a_graph_that_does_not_stop(graphs: Graphs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("slabwire.cli.commands.stop.GRACE_S", 0.0)
    graphs.start()
    result = invoke("stop", "--now")
    assert result.exit_code == Exit.FAILED
    assert "still runs after its drain time" in result.stderr


def test_restart(graphs: Graphs) -> None:
    graphs.start()
    outcome = {"before": 7, "pid": 8, "drained": 1, "cut_off": 0, "seconds": 1.25, "error": ""}
    graphs.answers["restart"] = {"restarted": ["scale"], "workers": [{"worker": "scale", **outcome}]}
    told = "scale of vision was restarted in 1.2 s (pid 7 to 8): "
    assert invoke("restart", "scale").stdout == f"{told}1 input in flight ended before\n"
    assert graphs.asked[-1] == ("vision", "restart", {"actor": "scale", "wait": True})
    outcome.update(drained=2, cut_off=3)
    graphs.answers["restart"]["workers"] = [{"worker": "scale", **outcome}]
    result = invoke("restart", "scale", "--drain-timeout", "4")
    assert result.stdout == f"{told}2 inputs in flight ended before, 3 inputs in flight cut off\n"
    assert graphs.asked[-1][2] == {"actor": "scale", "wait": True, "drain_timeout_s": 4.0}
    graphs.answers["restart"]["workers"].append({"worker": "edges", **outcome, "error": "its successor could not"})
    failed = invoke("restart", "scale", "--now")
    assert (failed.exit_code, failed.stdout[:5]) == (Exit.NOT_STARTED, "scale")
    assert failed.stderr == "error: edges of vision: its successor could not\n"
    assert graphs.asked[-1][2]["drain_timeout_s"] == 0.0
    graphs.answers["restart"] = {"restarted": ["scale", "edges[0]"]}
    assert invoke("restart", "scale", "--no-wait").stdout == "restarting scale, edges[0] of vision\n"
    assert invoke("restart", "vision", "edges").exit_code == Exit.OK
    typo = invoke("restart", "scael")
    assert typo.exit_code == Exit.FAILED
    assert "graph 'vision' has no actor 'scael'; did you mean 'scale'?" in typo.stderr
    assert invoke("restart", "a", "b", "c").exit_code == Exit.USAGE
    assert invoke("restart").exit_code == Exit.USAGE


def test_dead(graphs: Graphs) -> None:
    graphs.start()
    graphs.answers["dead"] = {"dead": []}
    assert invoke("dead").stdout == "vision has no dead messages\n"
    graphs.answers["dead"] = {"dead": [{"actor": "scale", "request": None, "unix_s": 0, "reason": "SIGSEGV"}]}
    lines = invoke("dead", "vision").stdout.splitlines()
    assert lines[0].split() == ["actor", "request", "when", "reason"]
    assert "1970-01-01 00:00:00" in lines[-1]
    assert "SIGSEGV" in lines[-1]


def test_layouts_of_the_package() -> None:
    result = invoke("layout")
    assert result.exit_code == Exit.OK
    assert "lane" in result.stdout
    layouts = json.loads(invoke("layout", "--format", "json").stdout)["layouts"]
    assert all(group["writer"] for layout in layouts for group in layout["groups"])


def test_layout_of_a_graph(graphs: Graphs) -> None:
    graphs.start()
    segments = [{"purpose": "slab of scale", "layout": "slab", "nbytes": 2048, "map": "slab: 2048 bytes"}]
    graphs.answers["layout"] = {"segments": segments}
    assert invoke("layout", "vision").stdout == "slab of scale\nslab: 2048 bytes\n"
    assert json.loads(invoke("layout", "vision", "--format", "json").stdout) == {
        "graph": "vision",
        "segments": segments,
    }


def test_the_layout_of_one_kind(graphs: Graphs) -> None:
    whole = invoke("layout").stdout
    for kind in ("lane", "returns", "slab", "bell", "inflight", "stats"):
        text = invoke("layout", kind).stdout
        assert text.startswith(f"{kind}:")
        assert text.strip() in whole
        assert invoke("layout", "--kind", kind).stdout == text
        (layout,) = json.loads(invoke("layout", kind, "--format", "json").stdout)["layouts"]
        assert layout["name"] == kind


def test_a_kind_that_is_not_there(graphs: Graphs) -> None:
    graphs.start()
    result = invoke("layout", "lnae")
    assert result.exit_code == Exit.NOT_RUNNING
    assert "no graph 'lnae' is running, nor is it a kind of segment; did you mean 'lane'?" in result.stderr
    assert "did you mean 'vision'" in invoke("layout", "visoin").stderr
    result = invoke("layout", "vision", "--kind", "slap")
    assert result.exit_code == Exit.USAGE
    assert "there is no kind 'slap'; did you mean 'slab'?" in result.stderr


def test_a_graph_that_is_called_as_a_kind(graphs: Graphs) -> None:
    graphs.start("slab")
    bell = {"purpose": "bell of scale", "layout": "bell", "nbytes": 256, "map": "bell: 256 bytes"}
    graphs.answers["layout"] = {"segments": [bell]}
    result = invoke("layout", "slab")
    assert result.stdout == "bell of scale\nbell: 256 bytes\n"
    assert result.stderr == "note: a graph 'slab' runs; `slabwire layout --kind slab` shows the kind\n"
    assert invoke("layout", "--kind", "slab").stdout.startswith("slab:")
    assert invoke("layout", "slab", "--kind", "slab").stdout == "slab has no segment of the kind slab\n"
    assert json.loads(invoke("layout", "slab", "--kind", "bell", "--format", "json").stdout) == {
        "graph": "slab",
        "segments": [bell],
    }


def test_who_keeps_whose_memory(graphs: Graphs) -> None:
    graphs.start()
    kept = {"holder": "keeps", "unread": False, "port": "keeps.keep", "request": 5, "line": "/k.py:3", "age_s": 2.0}
    blocks = [
        {
            "owner": "a",
            "nbytes": 1 << 20,
            "port": "a.go",
            "request": 5,
            "line": "/a.py:7",
            "age_s": 3.0,
            "held_by": [kept],
        },
        {"owner": "a", "nbytes": 2048, "held_by": [{"holder": "client-1", "unread": True}]},
        *[{"owner": "a", "nbytes": 1024, "held_by": []}] * 30,
    ]
    pools = {"a": {"used_nbytes": 3 << 20, "nbytes": 4 << 20, "out": 32}}
    held = {
        "kept": [{"actor": "a", "name": "keys", "nbytes": 4096}],
        "sockets": [{"address": "unix:///run/a", "held_for": ["a[0]", "a[1]"]}],
    }
    graphs.answers["leases"] = {"debug": False, "silent": ["busy"], "pools": pools, "blocks": blocks, **held}
    lines = invoke("leases").stdout.splitlines()
    assert lines[0] == "a: 3.0 MiB of 4.0 MiB in use, 32 blocks"
    assert lines[1] == "a keeps 'keys': 4.0 KiB"
    assert lines[2] == "unix:///run/a is held for a[0], a[1]"
    assert lines[3] == "busy: busy, it did not answer"
    assert next(each for each in lines if each.startswith("1.0 MiB")).split(maxsplit=4)[2:] == [
        "3.0s",
        "a",
        "a.go (request 5) at /a.py:7  keeps for 2.0s: keeps.keep (request 5) at /k.py:3",
    ]
    assert any(each.endswith("client-1, who has not handled it yet") for each in lines)
    assert "and 12 more: --every shows them" in lines
    assert lines[-1] == "start the graph with SLABWIRE_DEBUG_BLOCKS=1 to see ages, requests and lines"
    assert invoke("leases", "--every").stdout.count("itself") == 30
    assert len(json.loads(invoke("leases", "--format", "json").stdout)["blocks"]) == 32
