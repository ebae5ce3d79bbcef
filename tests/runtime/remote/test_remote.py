"""Remote clients of a graph that really runs: over tcp and ipc, with everything that can go away going away."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import zmq
import zmq.auth
from jaxtyping import Float32

import slabwire
from slabwire.runtime.clients import remote_connection as remote
from slabwire.runtime.clients.control import Control
from slabwire.runtime.control.verbs import OpenGateway
from slabwire.runtime.remote.curve_keyring import add_client, new_server
from waiting import wait_until
from zero_copy import zero_copy_thread  # noqa: F401 - a fixture


class Echo(slabwire.Actor):
    def __init__(self) -> None:
        self.cancelled = 0
        self.made = 0

    def it(self, value: object) -> object:
        return value

    def scaled(self, image: Float32[np.ndarray, "h w"], factor: float = 2.0) -> Float32[np.ndarray, "h w"]:
        return image * np.float32(factor)

    def upto(self, n: int) -> Iterator[int]:
        for each in range(n):
            self.made = each + 1
            yield each

    def frames(self, n: int) -> Iterator[np.ndarray]:
        for each in range(n):
            yield np.full((200, 100), each, np.int32)

    async def wait(self, seconds: float) -> str:
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return "waited"

    async def ticks(self) -> AsyncIterator[int]:
        try:
            for each in range(1_000_000):
                yield each
                await asyncio.sleep(0.001)
        finally:
            self.cancelled += 1

    def how_many_cancelled(self) -> int:
        return self.cancelled

    def how_many_made(self) -> int:
        return self.made

    def fail(self, text: str) -> None:
        raise ValueError(text)


def graph_of(name: str) -> slabwire.Graph:
    graph = slabwire.Graph(name)
    echo = graph.add(Echo)
    graph.expose(echo.it, echo.scaled, echo.upto, echo.frames, echo.wait, echo.ticks, echo.fail)
    graph.expose(echo.how_many_cancelled, echo.how_many_made)
    return graph


@pytest.fixture(autouse=True)
def run_directory(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with TemporaryDirectory(prefix="sw-", dir="/tmp") as folder:
        monkeypatch.setenv("SLABWIRE_RUN_DIR", f"{folder}/run")
        yield Path(folder)


class Served:
    """A running graph with its gateway's addresses."""

    def __init__(self, running: slabwire.Running) -> None:
        self.running = running
        found = self.gateway()
        self.ipc = str(found["address"])
        self.tcp = str(found["listen"][0])

    def gateway(self) -> dict[str, Any]:
        with Control(self.running.name) as control:
            return control.request(OpenGateway())


@pytest.fixture
def served() -> Iterator[Served]:
    with graph_of("echoes").run(listen="tcp://127.0.0.1:*") as running:
        yield Served(running)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


# -- what works ------------------------------------------------------------------------------------------------------

DTYPES = ["bool", "uint8", "int16", "int64", "float16", "float32", "complex128", ">f8", "<U4", "S3", "M8[ns]"]


def test_calls_and_streams_over_tcp_and_ipc(served: Served) -> None:
    for address in (served.tcp, served.ipc):
        with slabwire.connect(address) as client:
            assert client.name == "echoes"
            assert client.ports == served.running.client.ports
            value = {"text": "ä", "numbers": [1, 2.5, None, True], "raw": b"\0\1"}
            assert client.call("echo.it", value) == value
            assert client.call("echo.it", value=[]) == []
            assert list(client.stream("echo.upto", 1000)) == list(range(1000))
            assert list(client.stream("echo.it", 5)) == [5]


def test_tensors_of_many_dtypes_and_sizes(served: Served) -> None:
    with slabwire.connect(served.tcp) as client:
        for dtype in (*map(np.dtype, DTYPES), np.dtype(ml_dtypes.bfloat16)):
            for shape in ((), (0, 3), (5,), (70, 300)):
                array = np.ones(shape, np.uint8).astype(dtype)
                got = client.call("echo.it", array)
                assert (got.dtype, got.shape, got.tobytes()) == (array.dtype, array.shape, array.tobytes())
                assert not got.flags.writeable
        image = np.random.default_rng(0).random((1000, 2000), np.float32)
        assert np.array_equal(client.call("echo.scaled", image[:, ::2], factor=3.0), image[:, ::2] * np.float32(3))
        assert [int(each[7, 7]) for each in client.stream("echo.frames", 50)] == list(range(50))


def test_arrays_outlive_their_client(served: Served) -> None:
    with slabwire.connect(served.tcp) as client:
        got = client.call("echo.it", np.arange(100_000))
    assert np.array_equal(got, np.arange(100_000))


def test_threads_share_a_client(served: Served) -> None:
    wrong: list[object] = []

    def work(seed: int) -> None:
        for each in range(30):
            if client.call("echo.it", [seed, each]) != [seed, each]:
                wrong.append(seed)
            if list(client.stream("echo.upto", 20)) != list(range(20)):
                wrong.append(seed)

    with slabwire.connect(served.tcp) as client:
        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
    assert not wrong


def test_asyncio(served: Served) -> None:
    async def main() -> None:
        async with slabwire.connect_async(served.tcp) as client:
            assert "echo.it" in client.ports
            answers = await asyncio.gather(*(client.call("echo.it", each) for each in range(50)))
            assert answers == list(range(50))
            assert [each async for each in client.stream("echo.upto", 300)] == list(range(300))
            with pytest.raises(slabwire.DeadlineExceeded):
                await client.call("echo.wait", 60.0, timeout_s=0.05)
            while await client.call("echo.how_many_cancelled") < 2:  # some may end before they have begun
                waiting = asyncio.create_task(client.call("echo.wait", 60.0))
                await client.call("echo.it", 0)
                waiting.cancel()

    asyncio.run(main())


# -- what is refused -------------------------------------------------------------------------------------------------


def test_mistakes_are_errors_with_the_words_of_a_local_client(served: Served) -> None:
    calls: list[tuple[str, tuple[Any, ...]]] = [
        ("echo.ti", (1,)),
        ("echo.scaled", ()),
        ("echo.scaled", (np.zeros(3, np.float32),)),
        ("echo.scaled", (np.zeros((3, 3), np.int8),)),
        ("echo.it", (object(),)),
        ("echo.upto", (3,)),
    ]
    with slabwire.connect(served.tcp) as client:
        for target, args in calls:
            with pytest.raises(slabwire.SlabwireError) as far:
                client.call(target, *args)
            with pytest.raises(slabwire.SlabwireError) as near:
                served.running.client.call(target, *args)
            assert type(far.value) is type(near.value)
            assert str(far.value) == str(near.value)
        with pytest.raises(slabwire.UnknownPort, match=r"did you mean 'echo\.it'"):
            client.call("echo.ti", 1)
        with pytest.raises(slabwire.HandlerError, match="ValueError: too bad"):
            client.call("echo.fail", "too bad")
        with pytest.raises(slabwire.DeadlineExceeded):
            client.call("echo.wait", 60.0, timeout_s=0.05)
        assert client.call("echo.it", 1) == 1


def test_too_many_calls_of_one_client_are_turned_away(served: Served) -> None:
    async def main() -> None:
        async with slabwire.connect_async(served.tcp) as client:
            waiting = [asyncio.create_task(client.call("echo.wait", 60.0)) for _ in range(1100)]
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for each in done:
                assert isinstance(each.exception(), slabwire.Overloaded)
            for each in waiting:
                each.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
            assert await client.call("echo.it", 1, retries=20) == 1  # their cancels may still lie in the lane

    asyncio.run(main())


def test_nothing_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "HELLO_WITHIN_S", 0.2)
    address = f"tcp://127.0.0.1:{free_port()}"
    with pytest.raises(slabwire.Disconnected, match=f"no graph answers at {address}"):
        slabwire.connect(address)


@pytest.mark.parametrize(
    "address", ["tcp://127.0.0.1", "udp://127.0.0.1:1", "tcp://:5", "tcp://127.0.0.1:99999", "ipc://"]
)
def test_what_is_no_address_is_named(address: str) -> None:
    with pytest.raises(slabwire.Disconnected, match="write tcp://"):
        slabwire.connect(address)


def test_a_port_that_is_taken_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(slabwire.StartError, match=f"cannot listen at {address}: the address is in use"):
            graph_of("echoes").run(listen=address).__enter__()


def test_other_hosts_need_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLABWIRE_KEYS", raising=False)
    with pytest.raises(
        slabwire.StartError, match="can be reached from other hosts, so it needs CURVE keys: set SLABWIRE_KEYS"
    ):
        graph_of("echoes").run(listen="tcp://0.0.0.0:*").__enter__()
    with pytest.raises(slabwire.Disconnected, match=r"needs CURVE keys: connect\(\.\.\., keys=folder\)"):
        slabwire.connect("tcp://192.0.2.1:5555")


# -- keys ------------------------------------------------------------------------------------------------------------


def make_keys(folder: Path) -> tuple[Path, Path, Path]:
    """Folders for the server, for a client that it knows, and for one that it does not know any more."""
    server, known, stranger = folder / "server", folder / "known", folder / "stranger"
    new_server(server)
    add_client(server, "known", known)
    add_client(server, "stranger", stranger)
    (server / "clients" / "stranger.key").unlink()
    return server, known, stranger


def test_with_keys_known_clients_come_in_from_anywhere(run_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server, known, stranger = make_keys(run_directory)
    monkeypatch.setenv("SLABWIRE_KEYS", str(server))
    with graph_of("echoes").run(listen="tcp://lo:*") as running:  # by its name it is like any other interface
        address = Served(running).tcp
        with slabwire.connect(address, keys=known) as client:
            for key in (None, "once", "once"):
                back = client.call("echo.it", np.arange(50_000), idempotency_key=key)
                assert np.array_equal(back, np.arange(50_000))
        monkeypatch.setattr(remote, "HELLO_WITHIN_S", 1.0)
        for keys in (stranger, None):
            with pytest.raises(slabwire.SlabwireError, match=r"refuses the connection|no graph answers"):
                slabwire.connect(address, keys=keys)
        (server / "clients" / "broken.key").write_text("no certificate")
        add_client(server, "late", run_directory / "late")
        with slabwire.connect(address, keys=run_directory / "late") as client:
            assert client.call("echo.it", 1) == 1
        (server / "clients" / "late.key").unlink()
        with pytest.raises(slabwire.SlabwireError, match=r"refuses the connection|no graph answers"):
            slabwire.connect(address, keys=run_directory / "late")
        logs = "".join(each.read_text() for each in (running.directory / "logs").glob("*.log*"))
        secrets = [
            zmq.auth.load_certificate(each / name)[1]
            for each, name in ((server, "server.key_secret"), (known, "client.key_secret"))
        ]
        assert not any(secret is not None and secret.decode() in logs for secret in secrets)


@pytest.mark.long
def test_a_gateway_with_keys_is_asked_with_keys(run_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Longer than one may be silent."""
    server, _, _ = make_keys(run_directory)
    monkeypatch.setenv("SLABWIRE_KEYS", str(server))
    with graph_of("echoes").run(listen="tcp://lo:*") as running:
        until = time.monotonic() + 40.0
        while time.monotonic() < until:
            time.sleep(1.0)
            gateway = running.status()["gateway"]
            assert (gateway["state"], gateway["restarts"]) == ("ready", 0)


def test_a_successor_demands_keys_as_its_predecessor_did(run_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also at an address that, by its number, would need none."""
    server, known, _ = make_keys(run_directory)
    monkeypatch.setenv("SLABWIRE_KEYS", str(server))
    monkeypatch.setattr(remote, "HELLO_WITHIN_S", 1.0)
    with graph_of("echoes").run(listen="tcp://lo:*") as running:
        before = Served(running).gateway()
        os.kill(before["pid"], signal.SIGKILL)
        wait_until(lambda: running.status()["gateway"]["restarts"] and running.status()["gateway"]["state"] == "ready")
        after = Served(running).gateway()
        assert after["listen"] == before["listen"]
        with slabwire.connect(after["listen"][0], keys=known, wait_s=30.0) as client:
            assert client.call("echo.it", 1) == 1
        with pytest.raises(slabwire.SlabwireError, match=r"refuses the connection|no graph answers"):
            slabwire.connect(after["listen"][0])


def test_keys_that_others_may_read_are_refused(run_directory: Path) -> None:
    _, known, _ = make_keys(run_directory)
    (known / "client.key_secret").chmod(0o644)
    with pytest.raises(slabwire.StartError, match="chmod 600"):
        slabwire.connect("tcp://127.0.0.1:1", keys=known)
    with pytest.raises(slabwire.StartError, match=r"client\.key_secret is missing"):
        slabwire.connect("tcp://127.0.0.1:1", keys=run_directory)


# -- what goes away --------------------------------------------------------------------------------------------------


def until_cancelled(client: Any, at_least: int) -> None:
    """Returns when the actor has heard of so many cancels; the test's own time limit ends it otherwise."""
    while client.call("echo.how_many_cancelled") < at_least:
        pass


def test_leaving_the_loop_cancels_the_work(served: Served) -> None:
    with slabwire.connect(served.tcp) as client:
        for each in client.stream("echo.ticks"):
            if each == 5:
                break
        until_cancelled(client, 1)


def test_a_slow_client_pauses_its_stream_and_nobody_else(served: Served) -> None:
    with slabwire.connect(served.tcp) as slow, slabwire.connect(served.tcp) as other:
        items = slow.stream("echo.upto", 1_000_000)
        assert [next(items) for _ in range(3)] == [0, 1, 2]
        before, made = -1, 0
        while made != before:
            # Each of these goes through the same actor behind the items of the slow stream, if there is room for more.
            assert list(slow.stream("echo.it", 7)) == [7]
            assert len(list(other.stream("echo.frames", 50))) == 50
            before, made = made, other.call("echo.how_many_made")
        assert made < 2000
        assert [next(items) for _ in range(2000)] == list(range(3, 2003))


CLIENT = """
import sys, slabwire
client = slabwire.connect(sys.argv[1])
for each in client.stream("echo.ticks"):
    print(each, flush=True)
"""


def test_the_calls_of_a_killed_client_are_cancelled(served: Served) -> None:
    with subprocess.Popen([sys.executable, "-c", CLIENT, served.tcp], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"0\n"
        process.kill()
    with slabwire.connect(served.ipc) as client:
        until_cancelled(client, 1)


def test_a_killed_gateway_comes_back(served: Served) -> None:
    with slabwire.connect(served.tcp) as client:
        items = client.stream("echo.ticks")
        assert next(items) == 0
        pid = served.gateway()["pid"]
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(slabwire.Disconnected, match=r"graph 'echoes' at tcp://.* went away"):
            for _ in items:
                pass
        assert client.call("echo.it", "again") == "again"
        assert served.gateway()["pid"] not in (pid, 0)
        assert served.gateway()["listen"] == [served.tcp]


def test_a_stopped_gateway_is_replaced(served: Served) -> None:
    def gateway() -> dict[str, Any]:
        found: dict[str, Any] = served.running.status()["gateway"]
        return found

    first = wait_until(lambda: gateway() if gateway()["state"] == "ready" else None)
    assert (first["restarts"], first["last_exit"], first["listen"]) == (0, None, [served.tcp])
    with slabwire.connect(served.tcp) as client:
        os.kill(first["pid"], signal.SIGSTOP)
        wait_until(lambda: gateway()["pid"] not in (first["pid"], 0))
        with contextlib.suppress(slabwire.Disconnected):  # it may not know yet that nobody is there any more
            client.call("echo.it", "lost")
        assert client.call("echo.it", "again") == "again"
    second = wait_until(lambda: gateway() if gateway()["state"] == "ready" else None)
    assert (second["restarts"], second["last_exit"]) == (1, "hung and was killed")
    assert second["listen"] == [served.tcp]
    assert (
        "the gateway was stopped by a signal; it is killed"
        in (served.running.directory / "logs" / "supervisor.log").read_text()
    )
    os.kill(second["pid"], signal.SIGSTOP)  # which does not hold up the end


def test_a_client_outlives_its_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "HELLO_WITHIN_S", 5.0)
    address = f"tcp://127.0.0.1:{free_port()}"
    with graph_of("echoes").run(listen=address, drain_timeout_s=0.1):  # the stream does not end by itself
        client = slabwire.Client(address)
        assert client.call("echo.it", 1) == 1
        items = client.stream("echo.ticks")
        assert next(items) == 0
    with client:
        with pytest.raises(slabwire.SlabwireError):
            list(items)
        with pytest.raises(slabwire.Disconnected):
            client.call("echo.it", 2, timeout_s=0.2)
        with graph_of("echoes").run(listen=address):
            assert client.call("echo.it", 3) == 3


def test_closing_ends_what_another_thread_waits_for(served: Served) -> None:
    client = slabwire.Client(served.tcp)
    ended: list[BaseException] = []

    def wait() -> None:
        try:
            client.call("echo.wait", 60.0)
        except slabwire.SlabwireError as error:
            ended.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    with slabwire.connect(served.tcp) as other:
        assert other.call("echo.it", 1) == 1
        client.close()
        thread.join()
    assert isinstance(ended[0], slabwire.Disconnected)
    with pytest.raises(slabwire.Disconnected, match="is closed"):
        client.call("echo.it", 1)


def test_the_gateway_is_started_when_somebody_asks(run_directory: Path) -> None:
    with graph_of("echoes").run() as running:
        assert not (running.directory / "gateway").exists()
        with Control("echoes") as control:
            found = control.request(OpenGateway())
        assert found["address"] == f"ipc://{running.directory}/gateway"
        with slabwire.connect(found["address"]) as client:
            assert client.call("echo.it", 1) == 1
        assert (running.directory / "gateway").stat().st_mode & 0o077 == 0
