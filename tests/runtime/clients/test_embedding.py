"""Graphs inside other people's programs: services, threads, forks. Nothing of theirs changes."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import slabwire
from slabwire import Graph
from waiting import wait_until

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"


@pytest.fixture(scope="module", autouse=True)
def run_directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLABWIRE_RUN_DIR", str(tmp_path_factory.mktemp("run")))
        yield


def double(n: int) -> int:
    return 2 * n


def doubling(name: str = "double") -> Graph:
    graph = Graph(name)
    graph.expose(graph.add(double))
    return graph


# -- FastAPI ---------------------------------------------------------------------------------------------------------


def post(port: int, path: str, body: object) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("POST", path, json.dumps(body), {"content-type": "application/json"})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def test_a_fastapi_service_calls_and_streams() -> None:
    pytest.importorskip("fastapi")
    command = [sys.executable, "-m", "uvicorn", "--app-dir", str(EXAMPLES), "--port", "0", "fastapi_service:app"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        try:
            found = (re.search(r"running on http://127\.0\.0\.1:(\d+)", line) for line in server.stderr)
            port = int(next(match[1] for match in found if match))
            status, body = post(port, "/count", {"text": "to be or not to be"})
            assert (status, json.loads(body)) == (200, {"to": 2, "be": 2, "or": 1, "not": 1})
            status, body = post(port, "/words", {"text": "to be or"})
            assert (status, [json.loads(line) for line in body.splitlines()]) == (200, ["to", "be", "or"])
            assert post(port, "/count", {"txt": 1})[0] == 422
        finally:
            server.send_signal(signal.SIGINT)
            server.stderr.read()
    assert server.returncode in (0, -signal.SIGINT)


# -- what must stay as it was ----------------------------------------------------------------------------------------


def handlers() -> dict[int, Any]:
    return {number: signal.getsignal(number) for number in signal.valid_signals()}


@pytest.mark.parametrize("in_process", [False, True])
def test_no_signal_handler_and_no_loop_is_touched(in_process: bool) -> None:
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        before = handlers()
        with contextlib.suppress(LookupError), doubling().run(in_process=in_process) as running:
            assert running.client.call("double.double", 2) == 4
            assert handlers() == before
            assert asyncio.get_event_loop() is loop
            raise LookupError
        assert handlers() == before
        with pytest.raises(slabwire.Disconnected):  # the exception has ended it
            slabwire.connect("double")
    finally:
        asyncio.set_event_loop(None)
        loop.close()


def test_several_at_once_in_threads_that_are_not_main() -> None:
    answers: dict[str, Any] = {}

    def serve(name: str, in_process: bool) -> None:
        with doubling(name).run(in_process=in_process) as running:
            started.wait()
            answers[name] = [running.client.call("double.double", n) for n in range(3)]

    forms = {"one": False, "two": False, "here": True}
    started = threading.Barrier(len(forms))
    threads = [threading.Thread(target=serve, args=each) for each in forms.items()]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert answers == {name: [0, 2, 4] for name in forms}


def test_async_with_and_a_second_graph_of_the_name() -> None:
    async def main() -> None:
        async with doubling().run() as running:
            assert await running.client.call("double.double", 4) == 8
            with pytest.raises(slabwire.StartError, match=r"a graph named 'double' is running already .* another name"):
                await doubling().run().__aenter__()

    asyncio.run(main())


@pytest.mark.parametrize("in_process", [False, True])
def test_a_fork_neither_keeps_the_graph_nor_ends_it(in_process: bool) -> None:
    reading, writing = os.pipe()
    with doubling().run(in_process=in_process) as running:
        assert running.client.call("double.double", 1) == 2
        child = os.fork()
        if not child:
            os.close(writing)
            os.read(reading, 1)  # outlives the graph
            running.stop()  # as where it leaves the `with`
            os._exit(0)
        os.close(reading)
        try:
            assert running.client.call("double.double", 2) == 4
        finally:
            pid = running.pid
    try:
        assert in_process or not Path(f"/proc/{pid}").exists(), "the graph has ended, though a copy of its tie is open"
        with pytest.raises(slabwire.Disconnected):
            slabwire.connect("double")
    finally:
        os.close(writing)
        assert os.waitpid(child, 0)[1] == 0


OWNER = """
import os, sys, time
from slabwire import Graph
def double(n: int) -> int:
    return 2 * n
graph = Graph("left")
graph.expose(graph.add(double))
if __name__ == "__main__":
    running = graph.run().__enter__()
    running.client.call("double.double", 1)
    if not os.fork():
        os.read(0, 1)
        os._exit(0)
    print(running.pid, flush=True)
    os._exit(0)
"""


def test_a_fork_does_not_keep_the_graph_of_a_dead_owner(tmp_path: Path) -> None:
    script = tmp_path / "owner.py"
    script.write_text(OWNER)
    with subprocess.Popen([sys.executable, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as owner:
        assert owner.stdout is not None
        supervisor = int(owner.stdout.readline())
        stat = Path(f"/proc/{supervisor}/stat")
        wait_until(lambda: not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z")
