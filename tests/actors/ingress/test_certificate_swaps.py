"""Certificates that are swapped under an ingress of several processes: what clients, metrics and logs see."""

from __future__ import annotations

import hashlib
import os
import signal
import socket
import ssl
import threading
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from front_door import Door, counting
from made_certificates import put_pair, swap_as_kubernetes, trusted, weak
from slabwire.actors.ingress import Ingress
from slabwire.actors.ingress.certificates.authority import Authority
from slabwire.runtime.errors import GraphError, StartError
from waiting import wait_until, worker_of

NOW = datetime.now(UTC)
REPLICAS = 2
NAMES = ("localhost", "127.0.0.1")


@pytest.fixture(autouse=True)
def directories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLABWIRE_RUN_DIR", str(tmp_path / "run"))


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    authority = Authority.new("here", NOW)
    trusted(authority, tmp_path)
    return authority


class Visitor(Door):
    """A client that trusts the authority, and looks at the certificate that it meets."""

    def __init__(self, running: Any, folder: Path) -> None:
        self.authority = running.client.call("ingress.describe")["url"].removeprefix("https://")
        self.context = ssl.create_default_context(cafile=folder / "authority.pem")

    def meet(self) -> str:
        """The generation of a new connection."""
        host, _, port = self.authority.rpartition(":")
        with (
            closing(socket.create_connection((host, int(port)))) as plain,
            self.context.wrap_socket(plain, server_hostname="localhost") as secured,
        ):
            return hashlib.sha256(secured.getpeercert(True) or b"").hexdigest()[:12]

    def meets_only(self, generation: str) -> bool:
        """Whether both processes show that: each gets about half of the connections."""
        return all(self.meet() == generation for _ in range(12))

    def metrics(self) -> dict[str, float]:
        """What is shown of certificates, by its name and labels."""
        with closing(self.connect()) as connection:
            connection.request("GET", "/metrics")
            lines = connection.getresponse().read().decode().splitlines()
        shown = (each.rpartition(" ") for each in lines if each.startswith("slabwire_tls_certificate"))
        return {name: float(value) for name, _, value in shown}


def generation_in(folder: Path) -> str:
    der = ssl.PEM_cert_to_DER_cert((folder / "tls.crt").read_text())
    return hashlib.sha256(der).hexdigest()[:12]


def swap_lines(folder: Path) -> list[str]:
    logs = (folder / "run" / "counting" / "logs").glob("ingress*.log")
    return [line for log in logs for line in log.read_text().splitlines() if "certificates swapped" in line]


def kill(running: Any, worker: str) -> None:
    """Until it has a successor."""
    old = worker_of(running, worker)["pid"]
    os.kill(old, signal.SIGKILL)
    wait_until(lambda: worker_of(running, worker)["pid"] not in (None, old))


def test_all_processes_take_a_swap_call_it_the_same_and_no_stream_is_cut(tmp_path: Path, authority: Authority) -> None:
    volume = tmp_path / "volume"
    swap_as_kubernetes(volume, authority.issue(NAMES, "ecdsa", NOW - timedelta(days=10)), "1")
    with counting(tmp_path, certificate=str(volume), replicas=REPLICAS).run() as running:
        visitor, before = Visitor(running, tmp_path), generation_in(volume)
        assert visitor.meet() == before
        streams = [visitor.chat() for _ in range(6)]
        later = NOW + timedelta(hours=1)
        swap_as_kubernetes(volume, authority.issue([*NAMES, "chat.example"], "ecdsa", later), "2")
        after = generation_in(volume)
        wait_until(lambda: visitor.meets_only(after))
        for connection, answer in streams:
            (tmp_path / "go").touch()
            assert b"two" in answer.read()
            connection.close()
        told = running.client.call("ingress.describe")["tls"]
        assert (told["generation"], told["swaps"], told["refusal"]) == (after, 1, None)
        not_after = datetime.fromisoformat(told["not_after"]).timestamp()
        assert not_after > (NOW + timedelta(days=88)).timestamp()
        assert visitor.metrics() == {
            **{
                f'slabwire_tls_certificate_not_after_seconds{{replica="{each}"}}': not_after for each in range(REPLICAS)
            },
            f'slabwire_tls_certificates{{generation="{after}"}}': 1,
            'slabwire_tls_certificate_swaps_total{result="taken"}': REPLICAS,
            'slabwire_tls_certificate_swaps_total{result="refused"}': 0,
        }
        with closing(visitor.connect()) as connection:
            connection.request("GET", "/livez", headers={"host": "chat.example"})
            assert connection.getresponse().status == 200
        lines = swap_lines(tmp_path)
        assert len(lines) == REPLICAS
        assert all(f"generation {after} after {before}" in each for each in lines)


def test_a_process_that_is_killed_comes_back_with_what_lies_there(tmp_path: Path, authority: Authority) -> None:
    folder = tmp_path / "tls"
    put_pair(folder, authority.issue(NAMES, "ecdsa", NOW))
    with counting(tmp_path, certificate=str(folder / "tls.crt"), key=str(folder / "tls.key")).run() as running:
        visitor = Visitor(running, tmp_path)
        put_pair(folder, authority.issue(NAMES, "ecdsa", NOW))
        kill(running, "ingress")  # whether it has seen them or not
        wait_until(lambda: visitor.meet() == generation_in(folder))


def test_processes_that_are_killed_while_the_files_are_broken_go_on_with_what_they_had(
    tmp_path: Path, authority: Authority
) -> None:
    volume = tmp_path / "volume"
    swap_as_kubernetes(volume, authority.issue(NAMES, "ecdsa", NOW), "1")
    with counting(tmp_path, certificate=str(volume), replicas=REPLICAS).run() as running:
        visitor = Visitor(running, tmp_path)
        swap_as_kubernetes(volume, authority.issue(NAMES, "ecdsa", NOW), "2")
        before = generation_in(volume)
        wait_until(lambda: visitor.meets_only(before))
        (volume / "..data").rename(volume / "..away")
        for number in range(REPLICAS):
            kill(running, f"ingress[{number}]")
        wait_until(lambda: visitor.meets_only(before))
        assert "cannot be read" in running.client.call("ingress.describe")["tls"]["refusal"]
        # Until both are back, one may answer for the other.
        wait_until(lambda: visitor.metrics()['slabwire_tls_certificate_swaps_total{result="refused"}'] >= REPLICAS)
        swap_as_kubernetes(volume, authority.issue(NAMES, "ecdsa", NOW), "3")
        wait_until(lambda: visitor.meets_only(generation_in(volume)))
        assert running.client.call("ingress.describe")["tls"]["refusal"] is None


def test_a_successor_falls_back_also_from_what_only_openssl_refuses(tmp_path: Path, authority: Authority) -> None:
    folder = tmp_path / "tls"
    put_pair(folder, authority.issue(NAMES, "ecdsa", NOW))
    before = generation_in(folder)
    with counting(tmp_path, certificate=str(folder)).run() as running:
        visitor = Visitor(running, tmp_path)
        put_pair(folder, weak(authority, NAMES))
        for _ in range(2):
            kill(running, "ingress")
            wait_until(lambda: visitor.meet() == before)
        assert "key too small" in running.client.call("ingress.describe")["tls"]["refusal"]


def test_a_list_is_a_certificate_of_each_kind(tmp_path: Path, authority: Authority) -> None:
    pairs = [put_pair(tmp_path, authority.issue(NAMES, kind, NOW), kind) for kind in ("ecdsa", "rsa")]
    chains, keys = ([str(each[index]) for each in pairs] for index in (0, 1))
    with counting(tmp_path, certificate=chains, key=keys).run() as running:
        told = running.client.call("ingress.describe")["tls"]
        assert [each["kind"] for each in told["certificates"]] == ["ECDSA", "RSA"]
        assert told["certificates"][0]["file"] == chains[0]
    with pytest.raises(StartError, match="both for ECDSA keys"):
        counting(tmp_path, certificate=chains[:1] * 2, key=keys[:1] * 2).run().__enter__()


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"certificate": ["a", "b"], "key": ["a"]}, "not equally long"),
        ({"certificate": ["a", "b"], "key": "a"}, "not equally long"),
        ({"certificate": []}, "each is the path of a file"),
        ({"certificate": 3}, "each is the path of a file"),
        ({"certificate": "a", "key": [None]}, "each is the path of a file"),
    ],
)
def test_what_names_no_files_is_refused_when_the_graph_is_made(options: dict[str, Any], why: str) -> None:
    with pytest.raises(GraphError, match=why):
        Ingress(models={"a": "b"}, **options)


@pytest.mark.long
def test_a_swap_every_second_under_load_costs_no_handshake_and_no_stream(tmp_path: Path, authority: Authority) -> None:
    seconds, kinds = 30, ("ecdsa", "rsa", "ed25519")
    folder = tmp_path / "tls"
    for kind in kinds:
        put_pair(folder, authority.issue(NAMES, kind, NOW), kind)
    with counting(tmp_path, certificate=str(folder), replicas=REPLICAS).run() as running:
        visitor, done = Visitor(running, tmp_path), threading.Event()
        streams = [visitor.chat() for _ in range(10)]
        met: list[str] = []
        failed: list[Exception] = []

        def visit() -> None:
            while not done.is_set():
                try:
                    met.append(visitor.meet())
                except Exception as error:
                    failed.append(error)

        visitors = [threading.Thread(target=visit) for _ in range(4)]
        for each in visitors:
            each.start()
        for number in range(seconds):
            put_pair(folder, authority.issue(NAMES, kinds[number % 3], NOW), kinds[number % 3])
            time.sleep(1)
        done.set()
        for each in visitors:
            each.join()
        assert not failed
        assert len(set(met)) >= seconds / 3 - 1  # of ECDSA, which is what they are shown
        assert len(swap_lines(tmp_path)) >= seconds  # some in each of the processes
        (tmp_path / "go").touch()
        for connection, answer in streams:
            assert b"two" in answer.read()
            connection.close()
