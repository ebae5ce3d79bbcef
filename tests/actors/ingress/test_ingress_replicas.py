"""Several processes of one ingress: whichever is asked answers for all, and one that goes takes nothing with it."""

from __future__ import annotations

import http.client
import json
import os
import signal
import ssl
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from front_door import HELLO, Counts, Door, counting
from slabwire import Graph
from slabwire.actors.ingress import Ingress
from slabwire.runtime.clients.control import Control
from slabwire.runtime.control.verbs import Restart
from waiting import wait_until, worker_of

ANSWERED = "slabwire_requests_total", "counter", "200"
TOKENS = "slabwire_completion_tokens_total", "counter"
# What becomes of a connection that a process had accepted when it was killed; perhaps an answer's head was out already.
_NO_ANSWER = (http.client.RemoteDisconnected, http.client.IncompleteRead)
CUT = (ConnectionResetError, BrokenPipeError, *_NO_ANSWER, ssl.SSLError)


@pytest.fixture(autouse=True)
def directories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLABWIRE_RUN_DIR", str(tmp_path / "run"))
    monkeypatch.setenv("SLABWIRE_STATE_DIR", str(tmp_path / "state"))


class Pair:
    """Two replicas that run, and clients of theirs."""

    def __init__(self, running: Any, folder: Path) -> None:
        self.running, self.door, self.folder = running, Door(running), folder

    def go(self) -> None:
        """From now on answers are complete at once."""
        (self.folder / "go").touch()

    def accepted(self) -> list[int]:
        told = self.running.client.call("ingress.describe")
        return [each["accepted"] for each in told["replicas"]]

    def connect_to(self, replica: int) -> http.client.HTTPSConnection:
        """A connection that this replica has accepted."""
        while True:
            before, connection = self.accepted(), self.door.connect()
            connection.connect()
            if self.accepted()[replica] > before[replica]:
                return connection
            connection.close()

    def pid(self, replica: int) -> int:
        return int(worker_of(self.running, f"ingress[{replica}]")["pid"])

    def await_successor(self, replica: int, killed: int) -> None:
        name = f"ingress[{replica}]"
        wait_until(lambda: self.pid(replica) != killed and worker_of(self.running, name)["state"] == "ready")

    def restart(self, replica: int, drain_timeout_s: float = 60.0) -> None:
        with Control("counting") as control:
            control.request(Restart(f"ingress[{replica}]", drain_timeout_s, True), within_s=120)


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    with counting(tmp_path, replicas=2).run() as running:
        yield Pair(running, tmp_path)


def ask(connection: http.client.HTTPSConnection, path: str) -> tuple[int, bytes]:
    connection.request("GET", path)
    answer = connection.getresponse()
    return answer.status, answer.read()


def metrics(connection: http.client.HTTPSConnection) -> dict[tuple[str, ...], float]:
    _, text = ask(connection, "/metrics")
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def ready(connection: http.client.HTTPSConnection) -> tuple[int, dict[str, int]]:
    status, text = ask(connection, "/readyz")
    return status, json.loads(text)["replicas"]


def chat(connection: http.client.HTTPSConnection, **fields: Any) -> http.client.HTTPResponse:
    body = json.dumps({"model": "counter", "messages": HELLO, **fields})
    connection.request("POST", "/v1/chat/completions", body, {"content-type": "application/json"})
    return connection.getresponse()


def test_whichever_is_asked_tells_what_both_have_counted(pair: Pair) -> None:
    pair.go()
    first, second = pair.connect_to(0), pair.connect_to(1)
    with closing(first), closing(second):
        for connection in (first, first, second):
            assert chat(connection).read()
        for connection in (first, second):
            seen = metrics(connection)
            assert seen[ANSWERED] == 3
            assert seen[TOKENS] == 6
            assert seen["slabwire_requests_in_flight",] == 0
            assert seen["slabwire_replicas", "serving"] == 2
            shares = [seen["slabwire_connections_accepted_total", replica] for replica in "01"]
            assert shares == pair.accepted()
            assert min(seen["slabwire_connections", replica] for replica in "01") >= 1
            full, resumed = (seen["slabwire_tls_handshake_seconds_count", kind] for kind in ("full", "resumed"))
            assert full + resumed == seen["slabwire_tls_versions_total", "TLSv1.3"] <= sum(shares)
            assert ready(connection) == (200, {"serving": 2})
    told = pair.running.client.call("ingress.describe")
    assert min(told["handshaken"]["full"], full) >= 2
    assert sum(each["share"] for each in told["replicas"]) == pytest.approx(1, abs=0.01)


def test_requests_and_streams_that_run_at_the_other_are_seen(pair: Pair) -> None:
    first, second = pair.connect_to(0), pair.connect_to(1)
    with closing(first), closing(second):
        answer = chat(first, stream=True)
        while b"one" not in answer.readline():
            continue
        assert metrics(second)["slabwire_requests_in_flight",] == 1
        assert pair.running.client.call("ingress.describe")["ways"] == {"direct": 1, "asgi": 0}
        pair.go()
        assert answer.read().endswith(b"[DONE]\n\n")
        wait_until(lambda: metrics(second)["slabwire_requests_in_flight",] == 0)


def test_one_that_is_killed_keeps_what_it_has_counted_and_the_other_says_that_it_is_away(pair: Pair) -> None:
    pair.go()
    first, second = pair.connect_to(0), pair.connect_to(1)
    with closing(first), closing(second):
        for _ in range(3):
            assert chat(first).read()
        killed = pair.pid(0)
        os.kill(killed, signal.SIGSTOP)
        wait_until(lambda: ready(second) == (200, {"serving": 1, "away": 1}))
        seen = metrics(second)
        assert (seen[ANSWERED], seen["slabwire_replicas", "away"]) == (3, 1)
        assert ("slabwire_connections", "0") not in seen
        os.kill(killed, signal.SIGKILL)
        wait_until(lambda: ready(second) == (200, {"serving": 2}))
        again = pair.connect_to(0)
        with closing(again):
            assert metrics(again)[ANSWERED] == 3
            assert chat(again).read()
            assert metrics(second)[ANSWERED] == 4


def test_one_serves_what_waits_for_another_that_hangs(pair: Pair) -> None:
    pair.go()
    hung, open_ = pair.pid(1), pair.connect_to(0)
    os.kill(hung, signal.SIGSTOP)
    with closing(open_):
        wait_until(lambda: ready(open_) == (200, {"serving": 1, "away": 1}))
        before = metrics(open_)
        for _ in range(20):  # about half of which come to the socket of the one that hangs
            with closing(pair.door.connect()) as connection:
                assert chat(connection).read()
        seen = metrics(open_)
        assert seen[ANSWERED] == 20
        accepted = "slabwire_connections_accepted_total"
        assert seen[accepted, "0"] == before[accepted, "0"] + 20
        assert pair.pid(1) == hung
        os.kill(hung, signal.SIGCONT)
        wait_until(lambda: ready(open_) == (200, {"serving": 2}))


class Clients:
    """Clients that connect anew for each request, until they are told to stop."""

    def __init__(self, pair: Pair, threads: int = 4) -> None:
        self._pair = pair
        self._over = threading.Event()
        self.answered = 0
        self.cut: list[Exception] = []
        self.failed: list[Any] = []
        self._threads = [threading.Thread(target=self._ask) for _ in range(threads)]

    def __enter__(self) -> Clients:
        for each in self._threads:
            each.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for each in self._threads:
            each.join()

    def await_more(self, so_far: int) -> None:
        """Waits until ten more have been answered."""
        wait_until(lambda: self.answered > so_far + 10)

    def _ask(self) -> None:
        counted = 0.0
        while not self._over.is_set():
            connection = self._pair.door.connect()
            try:
                answer = chat(connection)
                if answer.status != 200 or not answer.read():
                    self.failed.append(answer.status)
                seen = metrics(connection)[ANSWERED]
                if seen <= counted:
                    self.failed.append(f"{seen} answers after {counted}")
                counted = seen
                self.answered += 1
            except CUT as error:
                self.cut.append(error)
            except Exception as error:
                self.failed.append(error)
            finally:
                connection.close()


def test_kills_under_load_refuse_no_connection_and_no_counter_falls(pair: Pair) -> None:
    pair.go()
    with Clients(pair) as clients:
        for replica in (0, 1, 0):
            so_far, killed = clients.answered, pair.pid(replica)
            clients.await_more(so_far)
            os.kill(killed, signal.SIGKILL)
            pair.await_successor(replica, killed)
    assert clients.failed == []


def test_restarts_under_load_lose_nothing(pair: Pair) -> None:
    pair.go()
    with Clients(pair) as clients:
        for replica in (0, 1, 0, 1):
            so_far, before = clients.answered, pair.pid(replica)
            clients.await_more(so_far)
            pair.restart(replica)
            assert pair.pid(replica) != before
    assert (clients.failed, clients.cut) == ([], [])


def test_a_restart_lets_a_stream_end_and_the_other_serves_meanwhile(pair: Pair) -> None:
    first, second, idle = pair.connect_to(0), pair.connect_to(1), pair.connect_to(0)
    with closing(first), closing(second), closing(idle):
        assert ask(idle, "/livez")[0] == 200
        answer = chat(first, stream=True)
        while b"one" not in answer.readline():
            continue
        restarting = threading.Thread(target=pair.restart, args=[0])
        restarting.start()
        wait_until(lambda: ready(second) == (200, {"serving": 1, "leaving": 1}))
        assert idle.sock.recv(1) == b""  # an idle connection is closed in order
        for _ in range(20):  # also those whom the kernel sends to the one that leaves
            with closing(pair.door.connect()) as connection:
                assert ask(connection, "/livez")[0] == 200
        pair.go()
        assert answer.read().endswith(b"[DONE]\n\n")
        restarting.join()
        assert ready(second) == (200, {"serving": 2})
        assert metrics(second)[ANSWERED] == 1


def test_streams_that_have_all_places_of_the_model_leave_some_for_probes(tmp_path: Path) -> None:
    graph = Graph("counting")
    graph.add(Counts, name="counts", folder=str(tmp_path), concurrency=16)
    ingress = graph.add(Ingress, name="ingress", models={"counter": "counts"}, port=0, replicas=2)
    graph.expose(ingress.describe)
    with graph.run(drain_timeout_s=0.1) as running, ExitStack() as open_:
        pair = Pair(running, tmp_path)
        asking = [open_.enter_context(closing(pair.connect_to(each))) for each in (0, 1) * 4]
        for each in asking:
            body = json.dumps({"model": "counter", "messages": HELLO, "stream": True, "n": 3})
            each.request("POST", "/v1/chat/completions", body, {"content-type": "application/json"})
        looking = open_.enter_context(closing(pair.connect_to(0)))
        wait_until(lambda: metrics(looking)["slabwire_requests_in_flight",] == 24)
        assert ("slabwire_model_slots", "counter") in metrics(looking)  # for the model has answered


def test_a_graph_that_drains_is_not_ready_at_any_replica(tmp_path: Path) -> None:
    with counting(tmp_path, replicas=2).run(drain_timeout_s=60) as running:
        pair = Pair(running, tmp_path)
        first, second, third = pair.connect_to(0), pair.connect_to(1), pair.connect_to(0)
        with closing(first), closing(second), closing(third):
            answer = chat(first, stream=True)
            while b"one" not in answer.readline():
                continue
            stopping = threading.Thread(target=running.stop)
            stopping.start()
            wait_until(lambda: ready(second) == (503, {"draining": 2}))
            assert ready(third) == (503, {"draining": 2})
            assert chat(second).status == 503
            pair.go()
            assert answer.read().endswith(b"[DONE]\n\n")
        stopping.join()
