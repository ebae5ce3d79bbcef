"""Streamed answers over TLS: every server sends each token to its own stream, and nothing that is wrong goes unseen."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from time import monotonic_ns

import pytest

from slabwire.actors.ingress.certificates.certificate import Certificate
from slabwire.actors.ingress.certificates.development import development_certificate
from slabwire.bench.harness.contestant import BenchError
from slabwire.bench.harness.load import Load
from slabwire.bench.harness.peers import importable
from slabwire.bench.harness.process import descendants
from slabwire.bench.topologies.ingress import _SERVERS
from slabwire.bench.ways.many_streams import pacing
from slabwire.bench.ways.many_streams.item import made_ns, mark_of, stamp_of
from slabwire.bench.ways.many_streams.pacing import BatchedPacing, batches_of
from slabwire.bench.ways.served_streams.asgi_server import AsgiServer
from slabwire.bench.ways.served_streams.first_tokens import FirstTokens
from slabwire.bench.ways.served_streams.opening import open_all, trust_in
from slabwire.bench.ways.served_streams.server import Server
from slabwire.bench.ways.served_streams.source_messages import close_message, open_message, read_message
from slabwire.bench.ways.served_streams.streams import CountedStream, TimedStream
from slabwire.bench.ways.served_streams.token_records import TokenRecords, WrongRecord
from slabwire.bench.ways.served_streams.token_source import SourceApart
from slabwire.bench.ways.served_streams.visit import ClientProcess, visit, visit_first_tokens, visit_rates
from waiting import wait_until

SERVERS, LEFT_OUT = importable(_SERVERS)
NAMED = {each.name: each for each in SERVERS}
# More than are timed, so that some are counted by their records.
LOAD = Load(103, 10.0)
EVENT_NBYTES = 260
DRAWS = find_spec("matplotlib") is not None


@pytest.fixture
def certificate(tmp_path: Path) -> Certificate:
    return development_certificate(directory=tmp_path / "tls")


def record(plain_nbytes: int) -> bytes:
    return b"\x17\x03\x03" + (plain_nbytes + 17).to_bytes(2, "big") + os.urandom(plain_nbytes + 17)


# -- servers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("server", SERVERS, ids=lambda server: server.name)
def test_a_visit_counts_every_token(server: type[Server], certificate: Certificate) -> None:
    figures = visit(server, LOAD, 0.3, certificate)
    assert (figures.tokens, figures.missed, figures.errors) == (103 * 3, 0, 0)
    assert len(figures.latencies_us) == 52 * 3
    assert len(figures.gaps_us) == 52 * 2
    assert min(figures.latencies_us) > 0
    assert figures.cpu_us() >= figures.cpu_us("serving") > 0
    assert ("source" in figures.cpu_ns) == ("inside" not in server.title)
    assert figures.took_ns >= 0.3e9
    assert len(figures.jitter_us) == 52 * 2
    assert figures.cores > 0
    assert descendants(os.getpid()) == []


@pytest.mark.parametrize("server", SERVERS[:2], ids=lambda server: server.name)
def test_two_processes_share_the_streams(server: type[Server], certificate: Certificate) -> None:
    figures = visit(server, LOAD, 0.2, certificate, processes=2)
    assert (figures.tokens, figures.errors) == (103 * 2, 0)


@pytest.mark.parametrize("name", ["slabwire", "uvicorn", "uvicorn_inside"])
def test_first_tokens_of_short_answers_beside_the_streams(name: str, certificate: Certificate) -> None:
    found = visit_first_tokens(NAMED[name], Load(20, 10.0), 30.0, 0.5, certificate, 1)
    assert len(found) == 15
    assert min(found) > 0


def test_one_rate_after_the_other_on_the_same_streams(certificate: Certificate) -> None:
    loads = [Load(20, 10.0), Load(20, 20.0)]
    for found in (visit_rates(NAMED[each], loads, 0.5, certificate, 1) for each in ("slabwire", "uvicorn")):
        assert [each.load for each in found] == loads[: len(found)]
        assert [(each.tokens, each.missed, each.errors) for each in found] == [(100, 0, 0), (200, 0, 0)][: len(found)]


def test_a_server_that_does_not_keep_up_gets_no_higher_rate(certificate: Certificate) -> None:
    loads = [Load(20, 10.0), Load(20, 1000.0), Load(20, 1001.0)]
    found = visit_rates(NAMED["uvicorn"], loads, 0.5, certificate, 1)
    assert not found[-1].is_in_time
    assert len(found) < 3


def test_a_source_apart_leaves_out_a_server_that_reads_nothing(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    source = SourceApart(path, "nobody", 1)
    with closing(source), socket.socket(socket.AF_UNIX) as server:
        server.connect(str(path))
        source.await_connected(1, lambda: None)
        for number in range(2000):
            server.sendall(open_message(number, briefly=False))
        wait_until(lambda: source.steps(100, 1000.0).missed > 0)
        assert source.steps(1, 1000.0).missed == 2000


# -- batches ----------------------------------------------------------------------------------------------------------


class Noted(BatchedPacing):
    """Notes which batch had its step when."""

    def __init__(self, batches: int) -> None:
        super().__init__(batches)
        self.made: list[tuple[int, int]] = []

    def _step_batch(self, batch: int, stamp: str) -> None:
        self.made.append((batch, made_ns(stamp)))


def test_no_batch_has_more_streams_than_an_engine() -> None:
    assert [batches_of(each) for each in (1, 100, 1000, 1001, 10_000)] == [1, 1, 1, 2, 10]


@pytest.mark.parametrize("batches", [1, 4])
def test_batches_have_their_steps_evenly_spread(batches: int) -> None:
    noted = Noted(batches)
    for _ in range(2):  # the second time from the first batch on, too
        noted.made.clear()
        before_ns = monotonic_ns()
        told = asyncio.run(noted.steps(3, 25.0))
        assert [batch for batch, _ in noted.made] == [*range(batches)] * 3
        for number, (_, began_ns) in enumerate(noted.made):
            assert began_ns >= before_ns + number * 40_000_000 // batches
        assert before_ns < told["began_ns"] <= noted.made[0][1]
        assert told["ended_ns"] - told["began_ns"] == 3 * 40_000_000


@pytest.mark.parametrize("server", SERVERS, ids=lambda server: server.name)
def test_every_stream_of_every_batch_gets_a_token_a_step(
    server: type[Server], certificate: Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pacing, "MOST_IN_BATCH", 40)
    figures = visit(server, LOAD, 0.3, certificate)
    assert (figures.tokens, figures.missed, figures.errors) == (103 * 3, 0, 0)
    assert len(figures.latencies_us) == 52 * 3
    assert len(figures.gaps_us) == 52 * 2
    assert figures.took_ns >= 0.3e9


def test_a_source_apart_sends_batch_after_batch(tmp_path: Path) -> None:
    async def read(connection: socket.socket, messages: int) -> list[tuple[list[int], list[str]]]:
        reader, _ = await asyncio.open_unix_connection(sock=connection.dup())
        return [await read_message(reader) for _ in range(messages)]

    path = tmp_path / "socket"
    source = SourceApart(path, "nobody", 3)
    with closing(source), socket.socket(socket.AF_UNIX) as server:
        server.connect(str(path))
        source.await_connected(1, lambda: None)
        for number in range(8):
            server.sendall(open_message(number, briefly=False))
        server.sendall(close_message(4) + open_message(9, briefly=True))
        ((numbers, _),) = asyncio.run(read(server, 1))  # it has read what came before
        assert numbers == [9]
        assert source.steps(2, 50.0).missed == 0
        came = asyncio.run(read(server, 6))
    assert [numbers for numbers, _ in came] == [[0, 3, 6], [1, 7], [2, 5]] * 2
    moments = [{made_ns(each) for each in texts} for _, texts in came]
    assert all(len(each) == 1 for each in moments)  # that at which the batch was made
    began = [each.pop() for each in moments]
    assert began == sorted(set(began))


@pytest.mark.parametrize(("peer", "module"), [("uvloop", "uvloop_server"), ("granian", "granian_server")])
def test_a_peer_that_is_absent_is_left_out(peer: str, module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, f"slabwire.bench.ways.served_streams.{module}", raising=False)
    monkeypatch.setitem(sys.modules, peer, None)
    servers, left_out = importable(_SERVERS)
    assert peer in left_out
    assert [each.name for each in servers][:2] == ["slabwire", "uvicorn"]


def test_a_server_that_ends_is_an_error(certificate: Certificate) -> None:
    with SERVERS[1](LOAD, certificate, 1) as server:
        assert isinstance(server, AsgiServer)
        os.kill(server._process.pid, signal.SIGKILL)
        server._process.wait()
        with pytest.raises(BenchError, match="uvicorn, asyncio has ended, with -9"):
            server.steps(1)


def test_streams_that_end_and_tokens_that_do_not_come_are_seen(certificate: Certificate) -> None:
    with SERVERS[1](LOAD, certificate, 1) as server, ClientProcess(certificate) as client:
        client.ask("open", server.port, 103)
        server.steps(1)
        client.ask("settle")
        client.ask("begin")
        assert server.steps(2).missed == 0
        came = client.ask("until", 103 * 2 + 1, 0.5)
        assert (came["tokens"], came["broken"], came["wrong"]) == (103 * 2, 0, 0)
        os.kill(server.pids()["serving"][0], signal.SIGKILL)
        came = client.ask("until", 103 * 3, 30.0)
        assert came["broken"] > 0


# -- the client -------------------------------------------------------------------------------------------------------


def chunk(tokens: int) -> int:
    """Bytes of a body's chunk with so many tokens."""
    return len(b"%x\r\n\r\n" % (tokens * EVENT_NBYTES)) + tokens * EVENT_NBYTES


@pytest.mark.parametrize(
    ("held", "tokens"),
    [
        ([chunk(1)] * 5, 5),
        ([chunk(1), chunk(1), chunk(3), chunk(1)], 6),  # some came together
        ([chunk(1) + chunk(2)], 3),  # two chunks in one record
        ([5, EVENT_NBYTES, 2, 5, EVENT_NBYTES, 2], 2),  # a chunk in parts
        ([chunk(30)], 30),
    ],
)
def test_tokens_are_counted_however_records_are_cut(held: list[int], tokens: int) -> None:
    data = b"".join(record(each) for each in held)
    for step in (1, 7, 252, 500, len(data)):
        records, rest, found, open_nbytes = TokenRecords(EVENT_NBYTES), b"", 0, 0
        for at in range(0, len(data), step):
            rest += data[at : at + step]
            more, open_nbytes, whole = records.count(rest, open_nbytes)
            found, rest = found + more, rest[whole:]
        assert (found, open_nbytes, rest) == (tokens, 0, b"")


@pytest.mark.parametrize("nbytes", [2, 13, EVENT_NBYTES, chunk(1) - 1, chunk(1) + 1, chunk(1) + 13, chunk(2) - 1])
def test_what_is_no_token_is_left_open(nbytes: int) -> None:
    assert TokenRecords(EVENT_NBYTES).count(record(nbytes), 0) == (0, nbytes, 22 + nbytes)


@pytest.mark.parametrize("data", [b"\x15\x03\x03\x00\x02\x01\x00", b"\x17\x03\x03\x00\x10" + bytes(16)])
def test_what_is_no_record_of_data(data: bytes) -> None:
    with pytest.raises(WrongRecord):
        TokenRecords(EVENT_NBYTES).count(data, 0)


@pytest.fixture
def pair(certificate: Certificate) -> Iterator[tuple[ssl.SSLSocket, ssl.SSLSocket]]:
    """A server's and a client's end of one connection."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.chain, certificate.key)
    context.num_tickets = 0
    here, there = socket.socketpair()
    ends: list[ssl.SSLSocket] = []
    thread = threading.Thread(target=lambda: ends.append(context.wrap_socket(here, server_side=True)))
    thread.start()
    client = trust_in(str(certificate.public)).wrap_socket(there, server_hostname="localhost")
    thread.join()
    client.setblocking(False)
    with ends[0] as server, client:
        yield server, client


def token(number: int, moment: int) -> bytes:
    event = b'data: {"content":"%s"}\n\n' % (stamp_of(moment) + mark_of(number)).replace("\n", "\\n").encode()
    return b"%x\r\n%b\r\n" % (len(event), event)


def test_tokens_of_a_timed_stream(pair: tuple[ssl.SSLSocket, ssl.SSLSocket]) -> None:
    server, client = pair
    stream = TimedStream(client, 7)
    server.sendall(token(7, 1) + token(7, 2)[:20])
    stream.take()
    server.sendall(token(7, 2)[20:])
    stream.take()
    assert (stream.tokens, stream.wrong, len(stream.latencies_us), len(stream.gaps_us)) == (2, 0, 2, 1)
    server.sendall(token(8, 3) + token(7, 3))  # another's, and one that is not newer
    stream.take()
    assert (stream.tokens, stream.wrong, stream.is_broken, stream.is_whole) == (4, 2, False, True)
    server.sendall(b"7\r\n: ping\n\r\n")
    stream.take()
    assert not stream.is_whole
    server.close()
    stream.take()
    assert stream.is_broken


def test_a_counted_stream_that_is_closed(pair: tuple[ssl.SSLSocket, ssl.SSLSocket]) -> None:
    server, client = pair
    stream = CountedStream(client)
    server.sendall(token(7, 1))
    stream.take()
    assert stream.tokens == 0  # nobody has said how long one is
    stream.count(TokenRecords(len(token(7, 1)) - len(b"30\r\n\r\n")))
    server.sendall(token(7, 1))
    server.sendall(token(7, 2) * 2)
    stream.take()
    assert (stream.tokens, stream.is_whole, stream.is_broken) == (3, True, False)
    server.close()
    stream.take()
    assert stream.is_broken
    stream._socket.close()


def test_what_a_server_says_instead_of_a_stream(certificate: Certificate) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.chain, certificate.key)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def refuse() -> None:
            with context.wrap_socket(listener.accept()[0], server_side=True) as connection:
                connection.recv(1 << 16)
                connection.sendall(b"HTTP/1.1 503 Service Unavailable\r\n\r\n")

        thread = threading.Thread(target=refuse)
        thread.start()
        with pytest.raises(BenchError, match=r"stream 0 was answered 'HTTP/1\.1 503 Service Unavailable"):
            list(open_all(trust_in(str(certificate.public)), listener.getsockname()[1], 1))
        thread.join()


# -- the bench --------------------------------------------------------------------------------------------------------


def test_the_bench_sets_all_servers_beside_each_other() -> None:
    some = ["slabwire", "uvicorn", "uvicorn_inside", "ssl_write"]
    arguments = ("bench", "ingress", "--quick", "--servers", ",".join(some), "--format", "json")
    done = subprocess.run([sys.executable, "-m", "slabwire", *arguments], capture_output=True, text=True, check=True)
    document = json.loads(done.stdout)
    absent = {each for each in ("uvloop", "granian") if find_spec(each) is None}
    assert set(document["left_out"]) == absent
    assert {each["contestant"] for each in document["figures"]["tokens"]} == set(some)
    for each in document["figures"]["tokens"]:
        assert (each["streams"], each["errors"], each["missed"]) == (20, 0, 0)
        assert each["cpu_us"] >= each["serving_cpu_us"] > 0
        assert each["latency_p99_us"] >= each["latency_p50_us"] > 0
    assert all(len(each["rounds_us"]) == 2 for each in document["results"])
    verified = {each["contestant"]: each["verified"] for each in document["results"] if "CPU" in each["case"]}
    assert verified == dict.fromkeys(some, 2 * 20 * 5)
    answered = {each["contestant"] for each in document["results"] if "first token" in each["case"]}
    assert answered == set(some) - {"ssl_write"}
    assert set(document["results"][0]["times"]) == set(some[1:])


def test_requests_that_no_connection_is_left_for(certificate: Certificate) -> None:
    asking = FirstTokens(str(certificate.public))
    with pytest.raises(BenchError, match="32 short answers have not ended"):
        asking._time_one()


def test_the_bench_raises_the_rate(tmp_path: Path) -> None:
    plot = tmp_path / "knee.svg"
    arguments = ("--quick", "--knee", "--servers", "slabwire,ssl_write", "--format", "json", "--plot", str(plot))
    command = [sys.executable, "-m", "slabwire", "bench", "ingress", *(arguments if DRAWS else arguments[:-2])]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    results = json.loads(done.stdout)["results"]
    assert {(each["case"], each["contestant"]) for each in results} >= {
        ("200/s", "slabwire"),
        ("200/s", "ssl_write"),
    }
    assert plot.exists() == DRAWS


def test_a_server_that_there_is_not_is_refused() -> None:
    command = [sys.executable, "-m", "slabwire", "bench", "ingress", "--servers", "slabwire,apache"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "apache cannot take part; there are slabwire, uvicorn" in done.stderr


def test_too_few_tokens_are_refused() -> None:
    command = [sys.executable, "-m", "slabwire", "bench", "ingress", "--streams", "10x0.1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "take 0.25 a second or more" in done.stderr
