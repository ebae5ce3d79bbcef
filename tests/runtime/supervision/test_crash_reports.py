"""What crash reports are made of, without processes."""

from __future__ import annotations

import errno
import json
import os
import signal
from pathlib import Path

import pytest

from fake_graphs import Graphs, fake_graphs, invoke
from slabwire.cli.exits import Exit
from slabwire.runtime.dataplane.peers import LaneRecord, Peer
from slabwire.runtime.dataplane.switchboard import Switchboard
from slabwire.runtime.errors import ProtocolError, StartError
from slabwire.runtime.graph.compiled import Routing
from slabwire.runtime.host.oom_kills import KillCounts, kills_in_machine
from slabwire.runtime.host.topology import Topology
from slabwire.runtime.placement.plan import plan
from slabwire.runtime.postmortem import report_store as crash_folder
from slabwire.runtime.postmortem.exit_reason import ending, late
from slabwire.runtime.postmortem.log_tail import LONGEST_TEXT, shortened, stacks_in
from slabwire.runtime.postmortem.remains import remains
from slabwire.runtime.postmortem.report_store import graphs_with_reports, keep, reports
from slabwire.runtime.spec import ActorSpec, CodeSpec, EdgeSpec, GraphSpec, HandlerSpec, PortRef, TypeSpec
from slabwire.shm.cgroup import memory_group


def test_endings_in_words() -> None:
    assert str(ending(0)) == "ended"
    assert str(ending(9)) == "ended with status 9"
    assert str(ending(3, error="ValueError: no (x.py:1)")) == "ended with status 3: ValueError: no (x.py:1)"
    assert str(ending(-signal.SIGUSR2)) == "killed by SIGUSR2"
    assert str(ending(-signal.SIGRTMIN - 1)) == f"killed by signal {signal.SIGRTMIN + 1}"
    assert str(ending(-signal.SIGKILL)) == "killed by SIGKILL (somebody killed it)"
    killed = ending(-signal.SIGKILL, killer="the memory limit of /x was reached")
    assert (killed.kind, str(killed).endswith("(SIGKILL): the memory limit of /x was reached")) == (
        "out_of_memory",
        True,
    )
    assert ending(-signal.SIGSEGV, killer="the memory limit of /x was reached").kind == "signal"
    assert str(ending(-signal.SIGKILL, overdue=late("start_timeout", 2.0))).startswith("did not start within 2 s")


@pytest.mark.parametrize(
    ("status", "kind", "failed"), [(0, None, False), (1, None, True), (-9, None, True), (0, "hang", True)]
)
def test_what_counts_as_a_failure(status: int, kind: str | None, failed: bool) -> None:
    assert ending(status, overdue=None if kind is None else late(kind, 1.0)).failed is failed  # type: ignore[arg-type]


STACKS = """\
Fatal Python error: Segmentation fault

Thread 0x00007f22 (most recent call first):
  File "/x/y.py", line 3 in wait
  ...

Current thread 0x00007f23 (most recent call first):
  File "/x/y.py", line 7 in touch

Extension modules: zmq (total: 1)""".splitlines()


def test_stacks_are_found_in_a_log() -> None:
    traceback = ["Traceback (most recent call last):", '  File "/x/y.py", line 3, in f', "ValueError: no"]
    assert stacks_in(["hello", *STACKS, "later"]) == STACKS
    assert stacks_in([*STACKS, "again", *STACKS[6:]]) == STACKS[6:]
    assert stacks_in([*traceback, "", "words"]) == []
    assert stacks_in([]) == []


def test_long_texts_lose_their_beginning() -> None:
    assert shortened("x" * LONGEST_TEXT) == "x" * LONGEST_TEXT
    assert shortened("abc" + "x" * LONGEST_TEXT) == "[3 characters are left out]\n" + "x" * LONGEST_TEXT


# -- where they are kept ---------------------------------------------------------------------------------------------


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Graphs:
    return fake_graphs(monkeypatch, tmp_path)


def a_report(worker: str = "scale", **changes: object) -> dict[str, object]:
    empty: dict[str, object] = {key: [] for key in ("handling", "lanes", "lent", "leased", "events")}
    texts = dict.fromkeys(("traceback", "stacks", "log", "error", "next", "reason"), "")
    numbers = {"unix_s": 1e9, "pid": 7, "alive_s": 1.0, "restarts": 0, "more_lanes": 0, "was_ready": True}
    return {"graph": "vision", "worker": worker, "actors": [worker], **empty, **texts, **numbers, **changes}


def test_few_reports_are_kept_of_few_graphs(graphs: Graphs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crash_folder, "MOST_GRAPHS", 3)
    for number in range(25):
        path = keep("vision", "scale", a_report(restarts=number))
    assert [each["restarts"] for each in reports("vision")] == list(range(24, 4, -1))
    path.with_suffix(".new").touch()  # a supervisor was killed while it wrote
    for number in range(4):
        keep(f"other{number}", "scale", a_report())
    assert graphs_with_reports() == ["other1", "other2", "other3"]
    keep("vision", "scale", a_report())
    assert len(list(path.parent.iterdir())) == 1


def test_a_full_disk_is_not_filled_further(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SLABWIRE_RUN_DIR", str(tmp_path))

    def full(_report: object, _file: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(json, "dump", full)
    with pytest.raises(OSError, match="No space left"):
        keep("graph", "one", {"worker": "one"})
    assert list(crash_folder.crash_directory("graph").iterdir()) == []


def test_folders_that_another_graph_removes_meanwhile_do_not_hinder_a_report(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SLABWIRE_RUN_DIR", str(tmp_path))
    listed = Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda folder: iter([*listed(folder), folder / "gone"]))
    assert keep("graph", "one", {"worker": "one"}).exists()
    assert graphs_with_reports() == ["graph"]


def test_what_is_no_report_is_named(graphs: Graphs) -> None:
    path = keep("vision", "scale", a_report())
    path.write_text("{")
    with pytest.raises(ProtocolError, match=r"scale\.json is no crash report: .*; remove it"):
        list(reports("vision"))
    result = invoke("logs", "vision", "--crash")
    assert result.exit_code == Exit.FAILED
    assert "is no crash report" in result.stderr
    path.parent.chmod(0o755)
    with pytest.raises(StartError, match="chmod 700"):
        keep("vision", "scale", a_report())


def test_reports_outlive_the_graph(graphs: Graphs) -> None:
    nothing = invoke("logs", "--crash")
    assert (nothing.exit_code, "no crash reports" in nothing.stderr) == (Exit.NOT_RUNNING, True)
    keep("vision", "scale", a_report(reason="ended with status 9"))
    keep("vision", "edges[0]", a_report("edges[0]", reason="hung and was killed"))
    assert "hung" in invoke("logs", "--crash").stdout
    assert "status 9" in invoke("logs", "vision", "scale", "--crash").stdout
    assert "hung" in invoke("logs", "vision", "edges", "--crash").stdout
    for typo, exit_code, hint in (
        (("visoin",), Exit.NOT_RUNNING, "did you mean 'vision'?"),
        (("vision", "scal"), Exit.FAILED, "did you mean 'scale'?"),
        (("vision", "--follow"), Exit.USAGE, "--crash prints a report"),
    ):
        result = invoke("logs", *typo, "--crash")
        assert (result.exit_code, hint in result.stderr) == (exit_code, True)
    assert invoke("logs", "vision", "--all").exit_code == Exit.USAGE
    graphs.start("calm")
    assert invoke("logs", "--crash").stdout == "calm has no crash reports\n"
    assert json.loads(invoke("logs", "vision", "--crash", "--format", "json").stdout)["worker"] == "edges[0]"


# -- kills for memory ------------------------------------------------------------------------------------------------

MOUNTS = {
    1: "30 29 0:26 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n",
    2: "30 29 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
}


class Machine:
    """A recorded tree in which process 7 is in the group /app/a."""

    def __init__(self, root: Path, version: int) -> None:
        self.root = root
        self.group = root / ("sys/fs/cgroup/memory/app/a" if version == 1 else "sys/fs/cgroup/app/a")
        self.counter = self.group / ("memory.oom_control" if version == 1 else "memory.events")
        for folder in (self.group, root / "proc/self", root / "proc/7"):
            folder.mkdir(parents=True)
        (root / "proc/self/mountinfo").write_text(MOUNTS[version])
        (root / "proc/7/cgroup").write_text("4:memory:/app/a\n" if version == 1 else "0::/app/a\n")
        self.counts(0, 0)

    def counts(self, group: int, machine: int) -> None:
        self.counter.write_text(f"under_oom 0\noom {group}\noom_kill {group}\noom_group_kill 0\n")
        (self.root / "proc/vmstat").write_text(f"nr_free_pages 7\noom_kill {machine}\n")


@pytest.mark.parametrize("version", [1, 2])
def test_kills_for_memory_are_told_apart(tmp_path: Path, version: int) -> None:
    machine = Machine(tmp_path, version)
    assert memory_group(tmp_path, 7) == machine.group
    now_s = 0.0
    kills = KillCounts(tmp_path, lambda: now_s)
    kills.look(7, kills_in_machine(tmp_path))
    assert kills.rose() is None
    machine.counts(0, 1)
    assert str(kills.rose()).startswith(f"by another limit than that of {machine.group}")
    kills.look(7, kills_in_machine(tmp_path))
    now_s = 60.0  # it was somebody else's, or the process would be dead by now
    assert kills.rose() is None
    machine.counts(1, 2)
    assert kills.rose() == f"the memory limit of {machine.group} was reached"
    kills.look(7, kills_in_machine(tmp_path))  # while the process is on its way out
    assert kills.rose() == f"the memory limit of {machine.group} was reached"


def test_without_control_groups_nobody_is_blamed(tmp_path: Path) -> None:
    kills = KillCounts(tmp_path)
    kills.look(7, kills_in_machine(tmp_path))
    assert kills.rose() is None


# -- what is left in shared memory -----------------------------------------------------------------------------------


def a_board() -> Switchboard:
    code, on = CodeSpec("file", "/x.py", "X"), (HandlerSpec("on", "plain", (), TypeSpec()),)
    edge = EdgeSpec(PortRef("a", "on"), PortRef("b", "on"), 4)
    spec = GraphSpec("g", (ActorSpec("a", code, on), ActorSpec("b", code, on)), (edge,))
    return Switchboard(Routing(spec), plan(spec, Topology.read()))


def scribble(lane: LaneRecord, peer: Peer) -> None:
    """Everything that lies there is impossible."""
    for segment in (lane.segment, lane.returns, *peer.tables.values(), peer.recorder):
        if segment is not None:
            with open(f"/proc/self/fd/{segment.fd}", "r+b") as file:
                file.seek(128)
                file.write(b"\xfe" * (segment.nbytes - 128))


def test_impossible_words_do_not_hinder_a_report() -> None:
    board = a_board()
    (lane,), peer = board.lanes.values(), board.home_of("b")
    assert remains(board, peer)["lanes"][0]["records"] == []
    scribble(lane, peer)
    left = remains(board, peer)
    assert json.loads(json.dumps(left)) == left
    assert left["handling"] == left["events"] == []
    board.close()
