"""`slabwire restart`, and workers whose code has changed on the disk."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import slabwire
from slabwire.cli.exits import Exit
from slabwire.runtime.clients.control import Control
from slabwire.runtime.control.verbs import Restart
from slabwire.runtime.launch.planner import plan_target
from slabwire.runtime.launch.running import Running, start
from slabwire.runtime.postmortem.report_store import reports
from slabwire.runtime.supervision.tree import Tree
from waiting import wait_until


def write(path: Path, text: str) -> None:
    """All at once: a worker may be importing the file."""
    fresh = path.with_suffix(".new")
    fresh.write_text(text)
    fresh.replace(path)


SHOP = """
import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from slabwire import Actor, Graph

HERE = Path(__file__).parent


class Price(Actor):
    def of(self, n: int) -> int:
        return 2 * n

    async def waiting(self, n: int) -> AsyncIterator[int]:
        for each in range(n):
            yield each
            while not (HERE / "go").exists():
                await asyncio.sleep(0.01)

    def polling(self, n: int) -> Iterator[int]:
        for each in range(n):
            yield each
            while not (HERE / "go").exists():
                time.sleep(0.01)
                yield -1

    def on_drain(self) -> None:
        (HERE / "draining").touch()


class Other(Actor):
    def it(self, n: int) -> int:
        return n


graph = Graph("shop")
price, other = graph.add(Price), graph.add(Other)
graph.expose(price.of, price.waiting, price.polling, other.it)
"""


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SLABWIRE_RUN_DIR", str(tmp_path / "run"))
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")  # files change here within a second, and keep their size
    path = tmp_path / "shop.py"
    write(path, SHOP)
    return path


@pytest.fixture
def running(shop: Path) -> Iterator[Running]:
    graph = start(plan_target(str(shop)), drain_timeout_s=30.0)
    yield graph
    assert graph.stop() == 0


def restart(*words: str) -> tuple[int, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "slabwire", "restart", "price", *words, "--format", "json"],
        capture_output=True,
        text=True,
    )
    return done.returncode, json.loads(done.stdout or done.stderr)


@pytest.mark.parametrize("kind", ["waiting", "polling"])
def test_a_restart_lets_streams_end_and_calls_wait(kind: str, running: Running, shop: Path) -> None:
    with slabwire.connect("shop") as client:
        stream, answers, calls = client.stream(f"price.{kind}", 3), [], []
        assert next(stream) == 0
        outcomes: list[Any] = []
        threads = [threading.Thread(target=lambda: outcomes.append(restart()))]
        threads[0].start()
        wait_until((shop.parent / "draining").exists)
        threads += [threading.Thread(target=lambda: calls.append(client.call("price.of", 4)))]
        threads[1].start()
        assert client.call("other.it", 1) == 1
        assert (outcomes, calls) == ([], [])
        (shop.parent / "go").touch()
        answers = [each for each in stream if each != -1]
        for each in threads:
            each.join()
    assert (answers, calls) == ([1, 2], [8])
    ((status, document),) = outcomes
    (told,) = document["workers"]
    assert (status, told["drained"], told["cut_off"], told["error"]) == (0, 1, 0, "")
    assert 0 != told["before"] != told["pid"] != 0
    assert told["pid"] == next(each["pid"] for each in running.status()["workers"] if each["name"] == "price")


def test_a_restart_cuts_off_what_does_not_end_in_time_and_says_so(running: Running) -> None:
    with slabwire.connect("shop") as client:
        stream = client.stream("price.waiting", 3)
        assert next(stream) == 0
        status, document = restart("--drain-timeout", "0.2")
        assert (status, document["workers"][0]["drained"], document["workers"][0]["cut_off"]) == (0, 0, 1)
        with pytest.raises(slabwire.Interrupted):
            list(stream)
        assert client.call("price.of", 1) == 2


def test_cancelled_streams_do_not_hold_up_a_restart(running: Running, shop: Path) -> None:
    with slabwire.connect("shop") as client:
        stream = client.stream("price.waiting", 3)
        next(stream)
        thread = threading.Thread(target=restart)
        thread.start()
        wait_until((shop.parent / "draining").exists)
        stream.close()
        thread.join()  # else after the drain time, which is longer than a test may take
        assert client.call("price.of", 1) == 2


@pytest.mark.parametrize("asked", [True, False])
def test_two_who_ask_for_a_restart_get_one(asked: bool, running: Running) -> None:
    with Control("shop", timeout_s=30) as one, Control("shop", timeout_s=30) as two:
        answers: list[Any] = []
        thread = threading.Thread(target=lambda: answers.append(one.request(Restart(actor="price", wait=asked))))
        thread.start()
        answers.append(two.request(Restart(actor="price", wait=True)))
        thread.join()
    wait_until(lambda: running.status()["not_ready"] == [])
    assert all(each["restarted"] == ["price"] for each in answers)


@pytest.fixture
def replicas(shop: Path) -> Iterator[Running]:
    write(shop, SHOP.replace("graph.add(Price)", "graph.add(Price, replicas=3)"))
    graph = start(plan_target(str(shop)), drain_timeout_s=30.0)
    yield graph
    assert graph.stop() == 0


def prices(running: Running) -> dict[str, dict[str, Any]]:
    return {each["name"]: each for each in running.status()["workers"] if each["name"].startswith("price")}


def test_replicas_are_replaced_one_after_the_other(replicas: Running) -> None:
    before = prices(replicas)
    outcomes: list[Any] = []
    thread = threading.Thread(target=lambda: outcomes.append(restart()))
    thread.start()
    while thread.is_alive():
        assert sum(each["state"] == "ready" for each in prices(replicas).values()) >= 2
    ((status, document),) = outcomes
    assert (status, document["restarted"]) == (0, list(before))
    assert all(each["before"] == before[each["worker"]]["pid"] != each["pid"] for each in document["workers"])


def test_replicas_go_on_where_the_first_of_them_cannot_start_anew(replicas: Running, shop: Path) -> None:
    before = prices(replicas)
    write(shop, shop.read_text().replace("return 2 * n", "return ("))
    status, document = restart()
    assert status == Exit.NOT_STARTED
    first, *others = document["workers"]
    assert "SyntaxError" in first["error"]
    assert [(each["pid"], each["error"]) for each in others] == [
        (before["price[1]"]["pid"], "it goes on as it was, since price[0] could not be restarted"),
        (before["price[2]"]["pid"], "it goes on as it was, since price[1] could not be restarted"),
    ]
    write(shop, SHOP.replace("graph.add(Price)", "graph.add(Price, replicas=3)"))
    status, document = restart()
    assert (status, [each["error"] for each in document["workers"]]) == (0, ["", "", ""])


BROKEN = {
    "syntax": ("return 2 * n", "return 2 *", r"shop\.py could not be imported: SyntaxError: .*shop\.py:14\)"),
    "missing module": ("import time", "import no_such_module", r"No module named 'no_such_module' \(.*shop\.py:3\)"),
    "raises": ("HERE = ", "raise OSError('disk')\nHERE = ", r"OSError: disk \(.*shop\.py:9\)"),
    "exits": ("HERE = ", "raise SystemExit(0)\nHERE = ", r"could not be imported: SystemExit"),
    "renamed": ("class Price(Actor):", "class Prices(Actor):", r"NameError: name 'Price' is not defined \(.*:\d+\)"),
    "no actor": ("class Price(Actor):", "class Price:", r"not <class 'shop\.Price'> \(.*shop\.py:\d+\)"),
    "field": ("def of(self, n: int)", "def of(self, n: str)", r"has changed .*'of': field 'n': int is not str"),
    "demands": ("def of(self, n: int)", "def of(self, n: int, tax: int)", r"'of': it demands a field 'tax'"),
    "answers": ("def of(self, n: int) -> int", "def of(self, n: int) -> str", r"'of': its result: str is not int"),
    "stream": (
        "        return 2 * n",
        "        yield 2 * n",
        r"'of': it answers with a stream, no longer with one value",
    ),
    "constructor": (
        "    def of(",
        "    def __init__(self) -> None:\n        1 / 0\n\n    def of(",
        r"Division.*shop\.py:14\)",
    ),
}


@pytest.mark.long
def test_code_that_cannot_be_loaded_is_tried_until_it_is_mended(running: Running, shop: Path) -> None:
    with slabwire.connect("shop") as client, Control("shop", timeout_s=60) as control:
        for what, (old, new, said) in BROKEN.items():
            write(shop, SHOP.replace(old, new, 1))
            (told,) = control.request(Restart(actor="price", wait=True))["workers"]
            assert re.search(f"its successor could not start: .*{said}", told["error"]), (what, told)
            assert client.call("other.it", 5) == 5
            (waiting,) = running.status()["not_ready"]
            assert (waiting["actor"], "ended with status 3: actor 'price'" in waiting["reason"]) == ("price", True)
            write(shop, SHOP)
            assert client.call("price.of", 3) == 6  # it has waited for the next try
    assert len(list(reports("shop"))) == len(BROKEN)


def test_a_crash_while_the_code_is_broken_does_not_end_the_graph(running: Running, shop: Path) -> None:
    write(shop, SHOP.replace("return 2 * n", "return ("))
    status, document = restart("--now")
    assert (status, "SyntaxError" in document["workers"][0]["error"]) == (Exit.NOT_STARTED, True)
    write(shop, SHOP)
    assert restart()[0] == 0
    write(shop, SHOP.replace("return 2 * n", "return ("))
    pid = next(each["pid"] for each in running.status()["workers"] if each["name"] == "price")
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: "SyntaxError" in str(running.status()["not_ready"]))
    log = (shop.parent / "run" / "shop" / "logs" / "supervisor.log").read_text()
    assert "shop.py:14); it is started again in" in log
    write(shop, SHOP)
    assert restart("--now")[0] == 0  # which does not wait for the next try
    with slabwire.connect("shop") as client:
        assert client.call("price.of", 3) == 6


def test_newer_code_that_does_more_is_taken(running: Running, shop: Path) -> None:
    more = "    def also(self, n: int) -> int:\n        return n\n\n    def of(self, n: int, tax: int = 1)"
    write(shop, SHOP.replace("    def of(self, n: int)", more).replace("2 * n", "3 * n + tax"))
    assert restart()[0] == 0
    with slabwire.connect("shop") as client:
        assert client.call("price.of", 3) == 10


def test_what_cannot_be_loaded_never_counts_and_is_tried_ever_more_slowly() -> None:
    tree, delays = Tree(("a", "b"), {"a": "permanent", "b": "temporary"}, []), []
    for failures in range(1, 40):
        tree.started("a")
        outcome = tree.could_not_load("a", failures=failures, now_s=0.0, draw=0.0)
        assert (outcome.verdict, tree.due(outcome.delay_s)) == ("restart", ["a"])
        delays.append(outcome.delay_s)
    assert delays == sorted(delays)
    assert delays[-1] == 5.0
    tree.started("a")
    assert tree.exited("a", failed=True, now_s=0.0, draw=0.0).restarts == 1
    assert tree.could_not_load("b", failures=1, now_s=0.0, draw=0.0).verdict == "ended"


def test_a_broken_first_start_fails_at_once(shop: Path) -> None:
    spec = plan_target(str(shop))
    write(shop, SHOP.replace("return 2 * n", "return ("))
    began = time.monotonic()
    with pytest.raises(slabwire.StartError, match=r"price could not start: .*SyntaxError.*shop\.py:14|other could not"):
        start(spec)
    print(f"after {time.monotonic() - began:.1f} s")
