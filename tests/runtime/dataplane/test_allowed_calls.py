"""A client that has more calls in flight than others says so at first; what it leaves behind is told in parts."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import slabwire
from slabwire import Actor, Graph
from slabwire.runtime.clients.local import LocalConnection
from slabwire.runtime.control.channel import EverythingMine
from slabwire.runtime.errors import Overloaded, ProtocolError
from slabwire.runtime.spec import MOST_CALLS
from waiting import wait_until


class Waits(Actor):
    def __init__(self) -> None:
        self.waiting = 0

    async def wait(self) -> None:
        self.waiting += 1
        try:
            await asyncio.Event().wait()
        finally:
            self.waiting -= 1

    def count(self) -> int:
        return self.waiting


@pytest.fixture
def running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[slabwire.Running]:
    monkeypatch.setenv("SLABWIRE_RUN_DIR", str(tmp_path))
    graph = Graph("allowed", client_calls=9_500)
    waits = graph.add(Waits, concurrency=10_000)
    graph.expose(waits.wait, waits.count)
    with graph.run(drain_timeout_s=0.1) as running:
        yield running


def test_a_client_has_as_many_calls_as_it_said(running: slabwire.Running) -> None:
    connection = LocalConnection("allowed", may_spin=False, calls=300)
    try:
        request = connection.caller.checked("waits.wait", (), {}, stream=False)
        for _ in range(300):
            connection.caller.begin(request)
        wait_until(lambda: running.client.call("waits.count") == 300)
        with pytest.raises(Overloaded, match="300 calls are in flight already"):
            connection.caller.begin(request)
    finally:
        connection.close()
    wait_until(lambda: running.client.call("waits.count") == 0)


def test_more_than_a_process_may_have_and_a_second_number_are_refused(running: slabwire.Running) -> None:
    with pytest.raises(ProtocolError, match=f"cannot have {MOST_CALLS + 1} calls"):
        LocalConnection("allowed", may_spin=False, calls=MOST_CALLS + 1)
    connection = LocalConnection("allowed", may_spin=False)
    try:
        for calls in (10, -1):
            with pytest.raises(ProtocolError, match=f"cannot have {calls} calls"):
                connection.link.ask(EverythingMine(calls))
    finally:
        connection.close()
    assert running.client.call("waits.count") == 0


CLIENT = """
import sys, time, slabwire
client = slabwire.connect(sys.argv[1])
for _ in range(9_400):
    while True:
        try:
            client._connection.begin("waits.wait", (), {}, 0, "", stream=False)
            break
        except slabwire.Overloaded:
            pass
while client.call("waits.count") < 9_400:
    time.sleep(0.01)
print("begun", flush=True)
time.sleep(1000)
"""


def test_a_killed_client_of_thousands_of_calls_ends_them_all(running: slabwire.Running) -> None:
    """More than one message of a descriptor channel can name; the worker's successor is told of them as well."""
    for _ in range(2):
        with subprocess.Popen([sys.executable, "-c", CLIENT, "allowed"], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"begun\n"
            process.kill()
        wait_until(lambda: running.client.call("waits.count") == 0)
    (worker,) = running.status()["workers"]
    os.kill(worker["pid"], signal.SIGKILL)
    wait_until(lambda: running.status()["workers"][0]["restarts"] == 1)
    assert running.client.call("waits.count") == 0
    assert running.status()["workers"][0]["restarts"] == 1
