"""A block that was passed on before its reader died, and came back before the successor looked at it."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from kill_stage import Keeps, Passes
from slabwire import Graph
from waiting import wait_until, worker_of


def test_an_input_keeps_the_block_that_its_predecessor_passed_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLABWIRE_RUN_DIR", str(tmp_path / "run"))
    graph = Graph("passed")
    passes, keeps = (graph.add(each, folder=str(tmp_path)) for each in (Passes, Keeps))
    graph.expose(passes.on, keeps.take, keeps.forget)
    with graph.run() as running, ThreadPoolExecutor(1) as pool:
        client = running.client
        answer = pool.submit(client.call, "passes.on", np.full(50_000, 7))
        wait_until((tmp_path / "kept").exists)
        os.kill(worker_of(running, "passes")["pid"], signal.SIGKILL)
        wait_until((tmp_path / "start-1").exists)  # it has taken over, and handles nothing yet
        client.call("keeps.forget")
        # As many blocks as there are of this size: one that was given back too early serves again.
        for number in range(200):
            client.call("keeps.forget")
            with pytest.raises(TimeoutError):
                client.call("keeps.take", np.full(50_000, number), timeout_s=0.002)
        (tmp_path / "go").touch()
        while not answer.done():  # whatever it keeps by now
            client.call("keeps.forget")
        assert answer.result() == 7
