"""Graphs that only seem to run, for tests of the command line."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from slabwire.cli import root
from slabwire.runtime.clients import control
from slabwire.runtime.control.verbs import VERBS, Verb
from slabwire.runtime.host import run_directory
from slabwire.runtime.launch import planner
from slabwire.runtime.spec import ActorSpec, CodeSpec, EdgeSpec, GraphSpec, HandlerSpec, PortRef, RouteSpec, TypeSpec

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


def fake_targets(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What `plan_target` gives for a target from now on: a spec, or an error that it raises."""
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
    keys = "handled failed redelivered dead sent dropped in_flight waiting p50_us p99_us busy_s busy_for_s outbox begun"
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
        "nursery": {"pid": 78, "pss_bytes": 10 << 20},
        "gateway": None,
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
        usual = {"status": self.statuses[name], "hello": {"spec": SPEC.to_plain()}}
        answer = self.answers.get(verb, usual.get(verb, {}))
        if isinstance(answer, Exception):
            raise answer
        return answer() if callable(answer) else answer


def fake_graphs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Graphs:
    """Puts fakes where the command line asks for graphs: nothing runs, until a test says so."""
    here = Graphs(tmp_path)

    class Control:
        def __init__(self, name: str, timeout_s: float = 5.0) -> None:
            self.name = name

        def __enter__(self) -> Control:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def request(self, verb: Verb, **options: Any) -> Any:
            return here.ask(
                self.name,
                VERBS.name_of(verb),
                {
                    name: value
                    for name, value in {**verb._asdict(), **options}.items()
                    if value is not None and value is not False
                },
            )

    monkeypatch.setattr(control, "Control", Control)
    monkeypatch.setattr(run_directory, "list_graphs", lambda: sorted(here.statuses))
    monkeypatch.setattr(run_directory, "graph_directory", lambda name: here.folder / name)
    monkeypatch.setattr(run_directory, "base_directory", lambda: here.folder)
    return here
