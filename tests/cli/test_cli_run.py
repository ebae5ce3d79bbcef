"""`slabwire run`: signals, statuses and echoed logs, with a supervisor that does what a test says."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from fake_graphs import Graphs, fake_graphs, fake_targets, invoke
from slabwire.cli.exits import Exit
from slabwire.runtime.launch import running as running_module
from slabwire.runtime.postmortem.stopped import Stopped
from slabwire.runtime.spec import GraphSpec


@pytest.fixture
def targets(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    return fake_targets(monkeypatch)


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Graphs:
    return fake_graphs(monkeypatch, tmp_path)


class FakeRunning:
    """A graph whose supervisor does, in `wait` and `stop`, what a test says."""

    name = "vision"
    last_status = 0
    stopped = Stopped()
    failure: str | None = None
    directory = Path("/nowhere/vision")

    def __init__(self, wait: Callable[[], int | None], stop: Callable[[], None] = lambda: None) -> None:
        self._wait, self._stop = wait, stop
        self.calls: list[str] = []
        self.options: dict[str, Any] = {}

    def wait(self, timeout_s: float | None = None) -> int | None:
        self.calls.append("wait")
        return self._wait()

    def stop(self) -> int:
        self.calls.append("stop")
        self._stop()
        return self.last_status

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


@pytest.mark.usefixtures("targets", "graphs", "handlers")
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
            "rebalance": False,
            "listen": "tcp://127.0.0.1:9",
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

    @pytest.mark.parametrize("drained", [True, False])
    def test_what_was_cut_off_is_said(self, monkeypatch: pytest.MonkeyPatch, drained: bool) -> None:
        running = FakeRunning(sends(signal.SIGINT) if drained else lambda: 6)
        running.last_status, running.stopped = 6, Stopped({"llm": 2}, {"cache": "did not stop in time and was killed"})
        result = run(monkeypatch, running, "--no-plan")
        assert result.exit_code == Exit.UNCLEAN
        words = (
            "2 messages were cut off (llm 2); cache did not stop in time and was killed; `slabwire logs vision --crash`"
        )
        assert f"vision was stopped: {words} tells more" in result.stdout
        said = run(monkeypatch, running, "--no-plan", "--format", "json").stdout.splitlines()[-1]
        assert json.loads(said)["cut_off"] == {"llm": 2}

    def test_a_dead_supervisor(self, monkeypatch: pytest.MonkeyPatch) -> None:
        result = run(monkeypatch, FakeRunning(lambda: -9))
        assert result.exit_code == Exit.LOST
        assert "supervisor of graph 'vision' ended with status -9" in result.stderr

    def test_a_graph_that_gives_up_says_why(self, monkeypatch: pytest.MonkeyPatch) -> None:
        running = FakeRunning(lambda: 1)
        running.failure = "scale died 11 times within 30 s: ended with status 7"
        result = run(monkeypatch, running)
        assert result.exit_code == Exit.LOST
        assert "graph 'vision' gave up: scale died 11 times within 30 s: ended with status 7" in result.stderr

    def test_a_supervisor_that_dies_while_draining(self, monkeypatch: pytest.MonkeyPatch) -> None:
        running = FakeRunning(sends(signal.SIGINT))
        running.last_status = -11
        result = run(monkeypatch, running)
        assert result.exit_code == Exit.LOST
        assert "status -11 while it was drained" in result.stderr

    def test_logs_are_echoed_to_the_last_line(self, monkeypatch: pytest.MonkeyPatch, graphs: Graphs) -> None:
        def wait() -> int:
            graphs.log("scale", "hello", "world")
            return 0

        result = run(monkeypatch, FakeRunning(wait), "--no-plan")
        assert {"scale | hello", "scale | world"} <= set(result.stdout.splitlines())

    def test_logs_of_another_graph_of_that_name_are_not(self, monkeypatch: pytest.MonkeyPatch, graphs: Graphs) -> None:
        graphs.start()
        graphs.log("scale", "not ours")
        assert "not ours" not in run(monkeypatch, FakeRunning(lambda: 0)).stdout

    def test_a_name_that_is_taken_is_said_before_the_plan(
        self, monkeypatch: pytest.MonkeyPatch, graphs: Graphs
    ) -> None:
        graphs.start()
        for words in ((), ("--name", "vision"), ("--format", "json")):
            result = run(monkeypatch, FakeRunning(lambda: 0), *words)
            assert (result.exit_code, result.stdout) == (Exit.NOT_STARTED, "")
            assert "'vision' is running already" in result.stderr
        assert run(monkeypatch, FakeRunning(lambda: 0), "--name", "other").exit_code == Exit.OK

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

    @pytest.mark.parametrize("name", ["", "a/b", "..", "x" * 41])
    def test_a_name_that_cannot_be(self, name: str) -> None:
        result = invoke("run", "vision.py", "--name", name)
        assert result.exit_code == Exit.USAGE
        assert "must consist of letters, digits, - and _" in result.stderr

    def test_an_address_that_is_none(self) -> None:
        result = invoke("run", "vision.py", "--listen", "127.0.0.1:9")
        assert result.exit_code == Exit.USAGE
        assert "does not begin with tcp://" in result.stderr
