"""The ingress as an actor: in graphs that run, with clients that know nothing of Slabwire."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from front_door import HELLO, Door, counting
from slabwire.actors.ingress import Ingress
from slabwire.runtime.errors import GraphError, StartError
from waiting import wait_until, worker_of

HEAVY = ("uvicorn", "httptools", "starlette", "cryptography", "prometheus_client")


@pytest.fixture(autouse=True)
def directories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLABWIRE_RUN_DIR", str(tmp_path / "run"))
    monkeypatch.setenv("SLABWIRE_STATE_DIR", str(tmp_path / "state"))


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def test_defining_a_graph_imports_nothing_heavy() -> None:
    program = f"import sys, slabwire.actors.ingress; print([each for each in {HEAVY} if each in sys.modules])"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_models_and_a_key_without_its_certificate_are_checked() -> None:
    with pytest.raises(GraphError, match="one model at least"):
        Ingress(models={})
    with pytest.raises(GraphError, match="without the certificate="):
        Ingress(models={"a": "b"}, key="key.pem")
    with pytest.raises(GraphError, match=r'minimum_tls=\'1\.1\'; it must be "1\.3" or "1\.2"'):
        Ingress(models={"a": "b"}, minimum_tls="1.1")  # type: ignore[arg-type]


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Any]:
    with counting(tmp_path).run() as running:
        yield running


def test_openais_own_client_talks_to_an_actor(tmp_path: Path, running: Any) -> None:
    import openai

    (tmp_path / "go").touch()
    door = Door(running)
    transport = openai.DefaultHttpxClient(verify=door.context, trust_env=False)
    with openai.OpenAI(
        base_url=f"{door.told['url']}/v1", api_key="any", max_retries=0, http_client=transport
    ) as client:
        messages: Any = HELLO
        whole = client.chat.completions.create(model="counter", messages=messages)
        assert whole.choices[0].message.content == "one two"
        stream = client.chat.completions.create(model="counter", messages=messages, stream=True)
        assert "".join(each.choices[0].delta.content or "" for each in stream) == "one two"
    assert running.client.call("ingress.describe")["requests"] == 2


def test_it_tells_where_it_listens_and_by_what_certificate(tmp_path: Path, running: Any) -> None:
    told = Door(running).told
    log = tmp_path / "run" / "counting" / "logs" / "ingress.log"
    for line in (f"page: {told['url']}/", f"API: {told['url']}/v1", f"certificate: {told['certificate']}"):
        assert f"INFO {line}\n" in log.read_text()
    assert told["certificate"] == str(tmp_path / "state" / "tls" / "localhost.pem")
    assert (told["tls"]["engine"], told["tls"]["minimum"]) == ("libssl", "TLSv1.3")
    assert told["models"] == {"counter": "counts"}
    assert "PRIVATE" not in log.read_text()


def test_a_client_that_leaves_cancels_the_actors_work(tmp_path: Path, running: Any) -> None:
    connection, answer = Door(running).chat()
    answer.close()
    connection.close()
    wait_until((tmp_path / "cancelled").exists)


def test_a_model_that_is_frozen_makes_the_server_unready_until_it_goes_on(running: Any) -> None:
    door = Door(running)
    assert door.get("/readyz")[0] == 200
    pid = worker_of(running, "counts")["pid"]
    os.kill(pid, signal.SIGSTOP)
    try:
        wait_until(lambda: door.get("/readyz")[0] == 503)
        assert "actor 'counts' (model 'counter') did not answer within 3 s" in door.get("/readyz")[1]["reasons"][0]
        assert door.get("/v1/models")[0] == 200
    finally:
        os.kill(pid, signal.SIGCONT)
    wait_until(lambda: door.get("/readyz")[0] == 200)


def test_other_names_and_other_sites_are_turned_away(running: Any) -> None:
    door = Door(running)
    connection = door.connect()
    for host, site, status in (
        ("evil.example", "same-origin", 421),
        ("localhost", "cross-site", 403),
        ("localhost", "same-origin", 400),
    ):
        headers = {"host": host, "sec-fetch-site": site, "content-type": "text/plain"}
        connection.request("POST", "/v1/chat/completions", b"{}", headers)
        answer = connection.getresponse()
        assert (answer.status, "error" in json.loads(answer.read())) == (status, True)
    connection.close()


def test_a_drain_turns_new_requests_away_and_lets_streams_end(tmp_path: Path) -> None:
    with counting(tmp_path).run(drain_timeout_s=60) as running:
        door = Door(running)
        connection, answer = door.chat()
        assert door.get("/readyz")[0] == 200
        stopping = threading.Thread(target=running.stop)
        stopping.start()
        wait_until(lambda: door.get("/readyz")[0] == 503)
        (tmp_path / "go").touch()
        rest = answer.read()
        assert b"two" in rest
        assert rest.endswith(b"data: [DONE]\n\n")
        connection.close()
        stopping.join()


def test_a_killed_ingress_comes_back_at_the_same_place(tmp_path: Path) -> None:
    with counting(tmp_path, port=free_port()).run() as running:
        door = Door(running)
        pid = worker_of(running, "ingress")["pid"]
        connection, answer = door.chat()
        os.kill(pid, signal.SIGKILL)
        assert b"[DONE]" not in _rest_of(answer)
        connection.close()
        wait_until((tmp_path / "cancelled").exists)  # for nobody waits for this answer any more
        wait_until(lambda: (each := worker_of(running, "ingress"))["state"] == "ready" and each["pid"] != pid)
        assert Door(running).told["url"] == door.told["url"]
        (tmp_path / "go").touch()
        again, answer = door.chat()
        assert answer.read().endswith(b"data: [DONE]\n\n")
        again.close()


def test_a_killed_ingress_loses_no_connection_that_waits(tmp_path: Path) -> None:
    with counting(tmp_path).run() as running, ThreadPoolExecutor(8) as clients:
        door = Door(running)
        killed = worker_of(running, "ingress")["pid"]
        os.kill(killed, signal.SIGSTOP)
        waiting = [door.connect() for _ in range(8)]
        for each in waiting:
            each.sock = socket.create_connection(("127.0.0.1", each.port))
        os.kill(killed, signal.SIGKILL)
        answers = [clients.submit(_answer_over_tls, door, each) for each in waiting]
        assert [each.result() for each in answers] == [200] * 8
        assert worker_of(running, "ingress")["pid"] != killed


def _answer_over_tls(door: Door, connection: http.client.HTTPSConnection) -> int:
    """By a connection that is made already."""
    connection.sock = door.context.wrap_socket(connection.sock, server_hostname="localhost")
    connection.request("GET", "/v1/models")
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return answer.status


def test_replicas_answer_at_one_port(tmp_path: Path) -> None:
    with counting(tmp_path, replicas=2, host="localhost").run() as running:
        door = Door(running)
        assert [door.get("/v1/models")[0] for _ in range(30)] == [200] * 30
        told = [running.client.call("ingress.describe") for _ in range(4)]
        assert {each["url"] for each in told} == {door.told["url"]}
        workers = [worker_of(running, f"ingress[{each}]")["pid"] for each in range(2)]
        os.kill(workers[0], signal.SIGSTOP)
        os.kill(workers[0], signal.SIGKILL)
        assert [door.get("/v1/models")[0] for _ in range(30)] == [200] * 30


def _rest_of(answer: http.client.HTTPResponse) -> bytes:
    try:
        return answer.read()
    except http.client.IncompleteRead as error:
        return error.partial
    except OSError:  # the connection was reset
        return b""


def test_an_address_in_use_ends_the_start_with_its_name(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(StartError, match=rf"cannot listen on tcp://127\.0\.0\.1:{port}: the address is in use"):
            counting(tmp_path, port=port).run().__enter__()


def test_a_given_certificate_is_used_or_named(tmp_path: Path) -> None:
    from slabwire.actors.ingress.certificates.development import development_certificate

    given = development_certificate("localhost", tmp_path / "given")
    with counting(tmp_path, certificate=str(given.public), key=str(given.key)).run() as running:
        assert Door(running).get("/livez")[0] == 200
    assert not (tmp_path / "state").exists()
    with pytest.raises(StartError, match=r"holds no private key in PEM"):
        counting(tmp_path, certificate=str(given.public)).run().__enter__()
