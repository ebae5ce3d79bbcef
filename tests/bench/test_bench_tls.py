"""TLS connections: all servers answer with the same bytes, and what is measured of them is there."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from slabwire.actors.ingress.certificates.certificate import Certificate
from slabwire.bench.harness.contestant import BenchError
from slabwire.bench.harness.party import Party
from slabwire.bench.harness.peers import importable
from slabwire.bench.harness.process import descendants
from slabwire.bench.topologies.tls import _SERVERS
from slabwire.bench.ways.tls_servers.command_server import require_program
from slabwire.bench.ways.tls_servers.echo_servers import EngineEcho
from slabwire.bench.ways.tls_servers.ingress_server import IngressServer
from slabwire.bench.ways.tls_servers.keys import made
from slabwire.bench.ways.tls_servers.visits import QUICK, Visits

SERVERS, LEFT_OUT = importable(_SERVERS)


@contextmanager
def asking(certificate: Certificate) -> Iterator[Party]:
    client = Party("ways.tls_servers.client:Client", certificate=str(certificate.public))
    try:
        yield client
    finally:
        client.close(now=True)


def test_a_server_gives_all_that_is_measured(tmp_path: Path) -> None:
    """With the other kind of key; the test of the whole bench has all servers."""
    certificate = made("RSA", tmp_path)
    with asking(certificate) as client, EngineEcho(certificate, 2) as server:
        visits = Visits(server, client, QUICK)
        assert set(visits.pids) < set(descendants(os.getpid()))
        cost_us, figures = visits.handshakes(resumes=False)
        assert cost_us == figures["cpu_us"] > 0
        assert 0 < figures["first_byte_p50_us"] <= figures["first_byte_p90_us"]
        assert figures["resumed"] == 0
        assert visits.requests()[1]["requests_a_second"] > 0
        cost_us, figures = visits.download()
        assert figures["megabytes_a_second"] == pytest.approx((1 << 20) / cost_us)
        assert 0 <= visits.resumed(4) <= 1
    assert descendants(os.getpid()) == []


def test_each_process_of_an_ingress_may_be_killed(tmp_path: Path) -> None:
    certificate = made("ECDSA", tmp_path)
    with asking(certificate) as client, IngressServer(certificate, 2) as server:
        before = server.pids()["serving"]
        server.kill_each()
        assert not set(before) & set(server.pids()["serving"])
        Visits(server, client, QUICK).resumed(4)


def test_a_network_adds_two_round_trips(tmp_path: Path) -> None:
    """One of the handshake, and one of the request."""
    certificate = made("ECDSA", tmp_path)
    delay = Party("ways.tls_servers.delay:Delay", round_trip_ms=20.0)
    with asking(certificate) as client, EngineEcho(certificate, 1) as server:
        visits = Visits(server, client, QUICK, delay.ask("listen", server.port))
        for resumes in (False, True):
            cost_us, figures = visits.far_handshakes(resumes=resumes)
            assert cost_us >= 40_000
            assert figures["resumed"] == resumes
    delay.close(now=True)


def test_a_server_that_ends_is_an_error(tmp_path: Path) -> None:
    certificate = made("ECDSA", tmp_path)
    with asking(certificate) as client, EngineEcho(certificate, 1) as server:
        os.kill(server.all_pids()[0], signal.SIGKILL)
        with pytest.raises(BenchError, match=r"ConnectionRefusedError|ConnectionResetError"):
            client.ask("connections", server.port, 1, False)


def test_a_program_that_is_absent_is_left_out() -> None:
    with pytest.raises(ImportError, match="no nowhere on this machine; Debian has it as nowhere-light") as absent:
        require_program("nowhere", "nowhere-light")
    assert absent.value.name == "nowhere"


@pytest.mark.long
@pytest.mark.timeout(400)
def test_the_bench_sets_all_servers_beside_each_other() -> None:
    arguments = ("bench", "tls", "--quick", "--processes", "2", "--format", "json")
    done = subprocess.run([sys.executable, "-m", "slabwire", *arguments], capture_output=True, text=True, check=True)
    document = json.loads(done.stdout)
    assert set(document["left_out"]) == set(LEFT_OUT)
    names = {each.name for each in SERVERS}
    figures = document["figures"]
    assert {each["contestant"] for each in figures["measured"]} == names == set(figures["idle_nbytes"])
    assert {each["case"] for each in figures["measured"]} == {each["case"] for each in document["results"]}
    assert set(figures["resumed"]["ingress"]) == {"before", "after"}
    assert all(len(each["rounds_us"]) == 2 for each in document["results"])
    for each in figures["measured"]:
        if "resumed" in each:
            assert each["resumed"] == each["case"].startswith("resumed")
        if "first_byte_p50_us" in each:
            assert 0 < each["first_byte_p50_us"] <= each["first_byte_p90_us"]
