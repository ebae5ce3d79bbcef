"""Any actor may be killed at any moment, under load: with idempotency keys nothing is lost, and nothing wrong."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import slabwire
from storm import Storm
from storm_stage import storm_graph
from waiting import wait_until
from zero_copy import zero_copy_thread  # noqa: F401 - a fixture


@pytest.fixture
def running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[slabwire.Running]:
    monkeypatch.setenv("SLABWIRE_RUN_DIR", str(tmp_path / "run"))
    with storm_graph().run(listen=f"ipc://{tmp_path}/door") as graph:
        yield graph


def storm_over(
    running: slabwire.Running, capsys: pytest.CaptureFixture[str], rate: int, seconds: int, kills: int, seed: int
) -> None:
    storm = Storm(running, rate, rate * seconds, seed)
    storm.run(kills, remote=f"ipc://{running.directory}/gateway")
    with capsys.disabled():
        print(f"\n{storm.report()}")
    assert (storm.wrong, storm.lost) == ([], [])
    assert storm.answered == storm.sent == rate * seconds
    assert len(storm.kills) == kills
    wait_until(lambda: all(each["state"] == "ready" for each in running.status()["workers"]))
    calm = Storm(running, rate, 22, seed)
    calm.run(0)
    assert (calm.wrong, calm.lost, calm.answered) == ([], [], 22)


def test_actors_die_while_messages_come(running: slabwire.Running, capsys: pytest.CaptureFixture[str]) -> None:
    storm_over(running, capsys, rate=200, seconds=3, kills=8, seed=1)


@pytest.mark.long
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("seed", range(2))
def test_a_hundred_kills_in_two_minutes(
    running: slabwire.Running, capsys: pytest.CaptureFixture[str], seed: int
) -> None:
    storm_over(running, capsys, rate=500, seconds=120, kills=100, seed=seed)
