"""Debuggers and input() in a worker, which has no terminal."""

from __future__ import annotations

import pdb
import sys
from pathlib import Path

import pytest

import slabwire
from slabwire import Actor, Graph


class Asks(Actor):
    def breaks(self) -> int:
        breakpoint()
        return 1

    def traces(self) -> int:
        pdb.set_trace()
        return 1

    async def waits(self) -> int:
        breakpoint()
        return 1

    def asks(self) -> str:
        return input("name? ")

    def reads(self) -> str:
        return sys.stdin.read() + "".join(sys.stdin)


def graph() -> Graph:
    made = Graph("asking")
    asks = made.add(Asks)
    made.expose(asks.breaks, asks.traces, asks.waits, asks.asks, asks.reads)
    return made


def test_whoever_asks_for_a_terminal_is_told_of_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLABWIRE_RUN_DIR", str(tmp_path / "run"))
    monkeypatch.delenv("PYTHONBREAKPOINT", raising=False)
    with graph().run() as running:
        said = rf"graph\.run\(in_process=True\).*{Path(__file__).name}:\d+"
        for port in ("breaks", "traces", "waits", "asks"):
            with pytest.raises(slabwire.HandlerError, match=said):
                running.client.call(f"asks.{port}")
        assert running.client.call("asks.reads") == ""


def test_a_debugger_that_was_chosen_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLABWIRE_RUN_DIR", str(tmp_path / "run"))
    monkeypatch.setenv("PYTHONBREAKPOINT", "0")
    with graph().run() as running:
        assert running.client.call("asks.breaks") == 1
