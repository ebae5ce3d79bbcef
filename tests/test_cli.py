"""The command line, driven as a user drives it; a fake answers what it asks of a running graph.

Real graphs are run in test_cli_live.py.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from slabwire.runtime import control, planner, rundir
from slabwire.runtime import running as running_module
from slabwire.runtime.cli import root
from slabwire.runtime.cli.exits import Exit
from slabwire.runtime.cli.logfile import Line, LogFile, date, stamp_of
from slabwire.runtime.cli.presentation import bytes_text, count_text, duration_text, micros_text
from slabwire.runtime.cli.sample import Sample, process_rows
from slabwire.runtime.errors import Disconnected, GraphError, StartError
from slabwire.runtime.spec import ActorSpec, CodeSpec, EdgeSpec, GraphSpec, HandlerSpec, PortRef, RouteSpec, TypeSpec

COMMANDS = ["run", "plan", "validate", "graph", "ps", "top", "logs", "stop", "restart", "dead", "doctor", "layout"]
CODE = CodeSpec("file", "/somewhere/vision.py", "Scale")
PIXELS = TypeSpec("tensor", 'UInt8[ndarray, "h w 3"]')
IMAGE = PortRef("scale", "image")
SPEC = GraphSpec(
    "vision",
    (
        ActorSpec("scale", CODE, (HandlerSpec("image", "plain", (), PIXELS),), cores=1),
        ActorSpec("edges", CODE, (HandlerSpec("find", "plain", (), PIXELS),), replicas=2),
    ),
    (EdgeSpec(IMAGE, PortRef("edges", "find"), 8, "drop_oldest"),),
    (RouteSpec(IMAGE, PortRef("edges", "find")),),
    exposed=1,
)


def invoke(*words: str, environment: dict[str, str] | None = None) -> Result:
    result = CliRunner().invoke(root, list(words), prog_name="slabwire", env=environment)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
    return result


@pytest.fixture
def targets(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What `plan_target` gives for a target: a spec, or an error that it raises."""
    known: dict[str, Any] = {"vision.py": SPEC}

    def plan_target(target: str) -> GraphSpec:
        found = known[target]
        if isinstance(found, Exception):
            raise found
        assert isinstance(found, GraphSpec)
        return found

    monkeypatch.setattr(planner, "plan_target", plan_target)
    return known


def an_actor(name: str, **changes: Any) -> dict[str, Any]:
    keys = "handled failed redelivered dead sent dropped in_flight waiting p50_us p99_us busy_s busy_for_s outbox"
    return {"name": name, **dict.fromkeys(keys.split(), 0), **changes}


def a_worker(name: str, *actors: dict[str, Any], **changes: Any) -> dict[str, Any]:
    keys = "pid restarts pss_bytes cpu_s spins parks wakes slab_bytes slab_used_bytes"
    plain = {"name": name, "cores": [0], "state": "ready", "last_exit": None, **dict.fromkeys(keys.split(), 0)}
    return {**plain, "actors": list(actors), **changes}


def a_status(name: str = "vision", **changes: Any) -> dict[str, Any]:
    return {
        "graph": name,
        "pid": os.getpid(),
        "state": "ready",
        "not_ready": [],
        "started_unix_s": time.time() - 100,
        "clients": 2,
        "memory_bytes": 3 << 20,
        "supervisor": {"pid": 77, "pss_bytes": 20 << 20, "cpu_s": 1.0},
        "workers": [
            a_worker("scale", an_actor("scale", handled=500, busy_s=50, p50_us=12.5, p99_us=1500), restarts=3),
            a_worker("edges[0]", an_actor("edges[0]", waiting=7), cores=[1, 3]),
            a_worker("shared", an_actor("join"), an_actor("draw")),
        ],
        "edges": [],
        **changes,
    }


class Graphs:
    """The graphs that seem to run: their statuses, and what was asked of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.statuses: dict[str, dict[str, Any]] = {}
        self.asked: list[tuple[str, str, dict[str, Any]]] = []
        self.answers: dict[str, Any] = {}

    def start(self, name: str = "vision", **changes: Any) -> None:
        self.statuses[name] = a_status(name, **changes)

    def log(self, worker: str, *lines: str, graph: str = "vision") -> Path:
        path = self.folder / graph / "logs" / f"{worker}.log"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as stream:
            stream.writelines(f"{line}\n" for line in lines)
        return path

    def ask(self, name: str, verb: str, arguments: dict[str, Any]) -> Any:
        self.asked.append((name, verb, arguments))
        answer = self.answers.get(verb, self.statuses[name] if verb == "status" else {})
        if isinstance(answer, Exception):
            raise answer
        return answer() if callable(answer) else answer


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Graphs:
    here = Graphs(tmp_path)

    class Control:
        def __init__(self, name: str, timeout_s: float = 5.0) -> None:
            self.name = name

        def __enter__(self) -> Control:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def request(self, verb: str, **arguments: Any) -> Any:
            return here.ask(self.name, verb, arguments)

    monkeypatch.setattr(control, "Control", Control)
    monkeypatch.setattr(rundir, "list_graphs", lambda: sorted(here.statuses))
    monkeypatch.setattr(rundir, "graph_directory", lambda name: here.folder / name)
    monkeypatch.setattr(rundir, "base_directory", lambda: here.folder)
    return here


# The root command


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
        "logs",
        "stop",
        "restart",
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
from slabwire.runtime.cli import root
try:
    root(["--help"], prog_name="slabwire")
except SystemExit as end:
    assert end.code == 0, end.code
heavy = {"numpy", "zmq", "rich", "msgpack", "dill", "onnxruntime", "asyncio"} & set(sys.modules)
sys.exit(f"imported: {sorted(heavy)}" if heavy else 0)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_module_and_version() -> None:
    done = subprocess.run([sys.executable, "-m", "slabwire", "--version"], capture_output=True, text=True, check=True)
    assert re.fullmatch(r"slabwire \d+\.\d+\.\d+\S*\n", done.stdout)


def test_a_typo_in_a_command() -> None:
    result = invoke("plna")
    assert result.exit_code == Exit.USAGE
    assert result.stderr.startswith("error: no command 'plna'; did you mean 'plan'?")


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


# Commands that look at a graph's code


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


# run


class FakeRunning:
    """A graph whose supervisor does, in `wait` and `stop`, what a test says."""

    name = "vision"
    directory = Path("/nowhere/vision")

    def __init__(self, wait: Callable[[], int | None], stop: Callable[[], None] = lambda: None) -> None:
        self._wait, self._stop = wait, stop
        self.calls: list[str] = []
        self.options: dict[str, Any] = {}

    def wait(self, timeout_s: float | None = None) -> int | None:
        self.calls.append("wait")
        return self._wait()

    def stop(self) -> None:
        self.calls.append("stop")
        self._stop()

    def kill(self) -> None:
        self.calls.append("kill")

    def start(self, spec: GraphSpec, **options: Any) -> FakeRunning:
        self.options = options
        return self


def sends(number: signal.Signals) -> Callable[[], Any]:
    def send() -> None:
        os.kill(os.getpid(), number)
        signal.sigtimedwait([], 60)  # the handler raises out of here

    return send


@pytest.fixture
def handlers() -> Iterator[None]:
    """The handlers of signals are the same after a command as before it."""
    before = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    yield
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == before


def run(monkeypatch: pytest.MonkeyPatch, running: FakeRunning, *options: str) -> Result:
    monkeypatch.setattr(running_module, "start", running.start)
    return invoke("run", "vision.py", *options)


@pytest.mark.usefixtures("targets", "handlers")
class TestRun:
    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_one_signal_drains(self, monkeypatch: pytest.MonkeyPatch, number: signal.Signals) -> None:
        running = FakeRunning(sends(number))
        result = run(monkeypatch, running, "--name", "mine", "--drain-timeout", "3", "--listen", "tcp://127.0.0.1:9")
        assert result.exit_code == Exit.OK
        assert running.calls == ["wait", "stop"]
        assert running.options == {
            "name": "mine",
            "drain_timeout_s": 3.0,
            "listen": "tcp://127.0.0.1:9",
            "echo_logs": True,
        }
        assert "vision on " in result.stdout
        assert re.search(r"vision is ready in \d+\.\d s", result.stdout)
        assert 'slabwire.connect("vision").call("scale.image", ...)' in result.stdout
        assert "vision was drained and stopped" in result.stdout

    @pytest.mark.parametrize(
        ("number", "status"), [(signal.SIGINT, Exit.INTERRUPTED), (signal.SIGTERM, Exit.TERMINATED)]
    )
    def test_two_signals_stop_now(self, monkeypatch: pytest.MonkeyPatch, number: signal.Signals, status: Exit) -> None:
        running = FakeRunning(sends(number), sends(number))
        assert run(monkeypatch, running, "--no-plan").exit_code == status
        assert running.calls == ["wait", "stop", "kill"]

    def test_stopped_from_elsewhere(self, monkeypatch: pytest.MonkeyPatch) -> None:
        result = run(monkeypatch, FakeRunning(lambda: 0), "--no-plan")
        assert result.exit_code == Exit.OK
        assert result.stdout.endswith("vision was stopped\n")
        assert "CPUs" not in result.stdout

    def test_a_dead_supervisor(self, monkeypatch: pytest.MonkeyPatch) -> None:
        result = run(monkeypatch, FakeRunning(lambda: -9))
        assert result.exit_code == Exit.LOST
        assert "supervisor of graph 'vision' ended with status -9" in result.stderr

    def test_events_as_json(self, monkeypatch: pytest.MonkeyPatch) -> None:
        result = run(monkeypatch, FakeRunning(sends(signal.SIGINT)), "--format", "json")
        events = [json.loads(line) for line in result.stdout.splitlines()]
        assert [each["event"] for each in events] == ["plan", "ready", "draining", "stopped"]
        assert events[1]["ports"] == ["scale.image"]

    def test_options_come_from_the_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SLABWIRE_RUN_DRAIN_TIMEOUT", "7")
        running = FakeRunning(lambda: 0)
        run(monkeypatch, running)
        assert running.options["drain_timeout_s"] == 7.0
        run(monkeypatch, running, "--drain-timeout", "8")
        assert running.options["drain_timeout_s"] == 8.0

    def test_a_signal_before_it_is_ready(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(running_module, "start", lambda *_, **__: sends(signal.SIGINT)())
        assert invoke("run", "vision.py").exit_code == Exit.INTERRUPTED

    def test_an_address_that_is_none(self) -> None:
        result = invoke("run", "vision.py", "--listen", "127.0.0.1:9")
        assert result.exit_code == Exit.USAGE
        assert "does not begin with tcp://" in result.stderr


# Commands that ask a running graph


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
    actor, process = (line.split() for line in lines if line.startswith("scale "))
    assert actor == ["scale", "500", "5.0", "0", "0", "12.5", "µs", "1.5", "ms", "50%", "0"]
    assert process[:5] == ["scale", "0", "0", "ready", "0%"]
    assert process[8] == "3"  # restarts
    assert any(line.startswith("join in shared ") for line in lines)
    assert [line.split()[1] for line in lines if line.startswith("edges[0]")] == ["0", "1,3"]
    assert lines[-1].startswith("(supervisor)")
    document = json.loads(invoke("top", "--once", "--format", "json").stdout)
    assert document["workers"][0]["actors"][0]["rate_per_s"] == pytest.approx(5, rel=0.05)
    assert document["supervisor"]["cpu"] == pytest.approx(0.01, rel=0.05)


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
    assert process_rows(second)[-1][0] == "(supervisor)"


def test_stop_asks_and_waits(graphs: Graphs) -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    assert child.stdin is not None
    graphs.start(pid=child.pid)
    graphs.answers["stop"] = lambda: child.communicate(b"\n") and {}
    result = invoke("stop", "--drain-timeout", "2.5")
    assert result.exit_code == Exit.OK
    assert re.fullmatch(rf"vision \(pid {child.pid}\) stopped in \d+\.\d s\n", result.stdout)
    assert graphs.asked[-1] == ("vision", "stop", {"drain_timeout_s": 2.5})


def test_stop_without_waiting(graphs: Graphs) -> None:
    graphs.start()
    assert invoke("stop", "--no-wait").stdout == f"vision (pid {os.getpid()}) is stopping\n"
    assert graphs.asked[-1] == ("vision", "stop", {})
    invoke("stop", "--no-wait", "--now")
    assert graphs.asked[-1] == ("vision", "stop", {"drain_timeout_s": 0.0})


def test_a_graph_that_does_not_stop(graphs: Graphs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("slabwire.runtime.cli.stop.GRACE_S", 0.0)
    graphs.start()
    result = invoke("stop", "--now")
    assert result.exit_code == Exit.FAILED
    assert "still runs after its drain time" in result.stderr


def test_restart(graphs: Graphs) -> None:
    graphs.start()
    assert invoke("restart", "scale").stdout == "scale of vision is being restarted\n"
    assert graphs.asked[-1] == ("vision", "restart", {"actor": "scale"})
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
    graphs.answers["dead"] = {"dead": [{"actor": "scale", "attempts": 3, "died_unix_s": 0, "reason": "SIGSEGV"}]}
    lines = invoke("dead", "vision").stdout.splitlines()
    assert lines[0].split() == ["actor", "attempts", "died", "reason"]
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
    graphs.answers["layout"] = {"segments": [{"layout": "lane", "owner": "scale", "nbytes": 2048}]}
    lines = invoke("layout", "vision").stdout.splitlines()
    assert lines[-1].split() == ["lane", "scale", "2.0", "KiB"]


# logs


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

    monkeypatch.setattr("slabwire.runtime.cli.logs.LIVENESS_EVERY_S", 0.0)
    monkeypatch.setattr("slabwire.runtime.cli.logs.sleep", step)
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
    path.unlink()
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


# doctor


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


# Quantities


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
