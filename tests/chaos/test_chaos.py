"""Whoever dies or stands still: each call ends, and what answered calls have set going comes to its end."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from chaos import Chaos
from storm_stage import storm_graph
from waiting import wait_until
from zero_copy import zero_copy_thread  # noqa: F401 - a fixture

# Its connection for calls, and those that it keeps for streams.
GATEWAYS_OWN = 9
# Of the long run. A shorter one: CHAOS_S=60 make test-long
LONG_S = float(os.environ.get("CHAOS_S", "600"))


def chaos_over(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    *,
    seconds: float,
    every_s: float,
    seed: int,
) -> None:
    monkeypatch.setenv("SLABWIRE_RUN_DIR", str(tmp_path / "run"))
    with storm_graph(tmp_path / "sides").run(listen=f"ipc://{tmp_path}/door") as running:
        chaos = Chaos(running, tmp_path, seed)
        tally = chaos.run(seconds, every_s)
        with capsys.disabled():
            print(f"\n{chaos.report(tally)}")
        assert tally.faults() == {}
        assert tally.answered > 0 < sum(chaos.blows.values())
        wait_until(lambda: all(each["state"] == "ready" for each in running.status()["workers"]))
        wait_until(lambda: running.status()["clients"] <= GATEWAYS_OWN)


def test_everybody_is_struck(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    chaos_over(tmp_path, monkeypatch, capsys, seconds=4.0, every_s=0.2, seed=3)


@pytest.mark.long
@pytest.mark.timeout(LONG_S * 2 + 300)
def test_ten_minutes_of_chaos(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    chaos_over(tmp_path, monkeypatch, capsys, seconds=LONG_S, every_s=0.5, seed=7)
