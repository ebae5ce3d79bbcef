"""Clients that outlive their graph, and what goes with a request from one attempt to the next."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import slabwire
from reunion_stage import teller_graph
from slabwire import Retry
from slabwire.runtime.clients.client import Client
from waiting import wait_until
from zero_copy import zero_copy_thread  # noqa: F401 - a fixture

OFTEN = Retry(times=200, first_s=0.01, most_s=0.1)
X = np.arange(50_000)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SLABWIRE_RUN_DIR", str(tmp_path / "run"))
    return tmp_path


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[slabwire.Running]:
    folder = tmp_path_factory.mktemp("tellers")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLABWIRE_RUN_DIR", str(folder / "run"))
        with teller_graph("tellers", folder).run(listen="tcp://127.0.0.1:*") as graph:
            yield graph


def start(folder: Path) -> slabwire.Running:
    return teller_graph("tellers", folder).run().__enter__()


def kill_supervisor(running: slabwire.Running) -> None:
    os.kill(running.pid, signal.SIGKILL)
    running.wait()


def address_of(running: slabwire.Running) -> str:
    return f"ipc://{running.directory / 'gateway'}"


def test_handlers_of_every_kind_see_the_key(running: slabwire.Running) -> None:
    forged: dict[str, Any] = {"": "forged"}
    with slabwire.connect("tellers") as local, slabwire.connect(address_of(running)) as remote:
        for client in (local, remote):
            assert client.call("teller.key") == [None, 1]
            assert client.call("teller.key", idempotency_key="a") == ["a", 1]
            assert client.call("teller.plain", 3, X, idempotency_key="b" * 128) == [3, int(X.sum()), "b" * 128]
            assert client.call("teller.plain", n=3, idempotency_key="ä") == [3, 0, "ä"]
            assert client.call("teller.coroutine", X, idempotency_key="c") == "c"
            assert client.call("teller.batch", X, idempotency_key="d") == "d"
            assert list(client.stream("teller.keys", 2, idempotency_key="e")) == ["e", "e"]
            assert len(client.call("teller.key", idempotency_key=True)[0]) == 32
            with pytest.raises(slabwire.MessageError, match="idempotency_key"):
                client.call("teller.key", idempotency_key="")
            with pytest.raises(slabwire.MessageError, match=r"plain.*''"):
                client.call("teller.plain", 3, **forged)

    async def main() -> None:
        async with slabwire.connect_async("tellers") as near, slabwire.connect_async(address_of(running)) as far:
            for client in (near, far):
                assert await client.call("teller.plain", 3, X, idempotency_key="f") == [3, int(X.sum()), "f"]
                assert [each async for each in client.stream("teller.keys", 2, idempotency_key="g")] == ["g", "g"]

    asyncio.run(main())


def test_what_is_full_says_so_and_is_asked_again(running: slabwire.Running) -> None:
    """Who only waits for room needs no key; who may have been at work does."""

    async def flood(where: str, port: str, count: int, *args: Any, **how: Any) -> list[Any]:
        async with slabwire.connect_async(where) as client:
            calls = (client.call(port, *args, **how) for _ in range(count))
            return await asyncio.gather(*calls, return_exceptions=True)

    for where in ("tellers", address_of(running)):
        refused = [each for each in asyncio.run(flood(where, "gate.enter", 12, 7)) if each != 7]
        assert {type(each) for each in refused} == {slabwire.EdgeFull}
        assert "edge gate.enter -> narrow.take is full: 2 messages wait" in str(refused[0])
        assert asyncio.run(flood(where, "gate.enter", 12, 7, retries=OFTEN)) != [7] * 12
        keyed = asyncio.run(flood(where, "gate.enter", 12, 7, retries=OFTEN, idempotency_key=True))
        assert keyed == [7] * 12
    remote = address_of(running)
    refused = [each for each in asyncio.run(flood(remote, "teller.count", 1100, 0.1)) if not isinstance(each, int)]
    assert {type(each) for each in refused} == {slabwire.Overloaded}
    assert "1024 calls of this client are in flight" in str(refused[0])
    answers = asyncio.run(flood(remote, "teller.count", 1100, 0.1, retries=OFTEN))
    assert all(isinstance(each, int) for each in answers)


def test_a_successor_sees_the_key(running: slabwire.Running) -> None:
    calls = {"teller.dies_once": "h", "teller.dies_once_later": "i"}
    with slabwire.connect("tellers") as client:
        for port, key in calls.items():
            assert client.call(port, X, idempotency_key=key) == [key, 2, int(X.sum())]


def test_a_client_finds_the_graph_that_came_back(folder: Path) -> None:
    first = start(folder)
    client = Client("tellers")
    kept = client.call("teller.doubled", X)
    ended: list[Any] = []

    def wait() -> None:
        try:
            client.call("teller.linger")
        except slabwire.SlabwireError as error:
            ended.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    wait_until((folder / "lingers").exists)
    kill_supervisor(first)
    thread.join()
    assert isinstance(ended[0], slabwire.Disconnected)
    with pytest.raises(slabwire.Disconnected, match="no graph named 'tellers'"):
        client.call("teller.key")
    with teller_graph("tellers", folder).run():
        assert client.call("teller.key") == [None, 1]
        assert (client.call("teller.doubled", X) == kept).all()
    first.kill()
    with teller_graph("tellers", folder).run():
        assert [client.call("teller.plain", n)[0] for n in range(3)] == [0, 1, 2]  # with nobody listening before
        assert list(client.stream("teller.keys", 2)) == [None, None]
    client.close()
    assert (kept == 2 * X).all()
    with pytest.raises(slabwire.Disconnected, match="is closed"):
        client.call("teller.key", retries=OFTEN)


def test_an_asyncio_client_finds_the_graph_that_came_back(folder: Path) -> None:
    async def main() -> None:
        first = start(folder)
        async with slabwire.connect_async("tellers") as client:
            kept = await client.call("teller.doubled", X)
            lost = [asyncio.create_task(client.call("teller.linger")) for _ in range(3)]
            while not (folder / "lingers").exists():
                await asyncio.sleep(0.005)
            kill_supervisor(first)  # the loop hears of it when it comes to that
            with pytest.raises(slabwire.Disconnected, match="no graph named 'tellers'"):
                await client.call("teller.key")
            assert all(
                isinstance(each, slabwire.Disconnected) for each in await asyncio.gather(*lost, return_exceptions=True)
            )
            waiting = [asyncio.create_task(client.call("teller.plain", n, retries=OFTEN)) for n in range(4)]
            second = await asyncio.to_thread(start, folder)
            assert [each[0] for each in await asyncio.gather(*waiting)] == [0, 1, 2, 3]
            assert [each async for each in client.stream("teller.keys", 2)] == [None, None]
            assert (kept == 2 * X).all()
            await asyncio.to_thread(second.stop)
        first.kill()

    asyncio.run(main())


def test_with_a_key_a_call_survives_the_supervisor(folder: Path) -> None:
    first = start(folder)
    clients = [Client("tellers", retries=OFTEN) for _ in range(2)]
    answers: list[int] = []

    def wait(client: Client) -> None:
        answers.append(client.call("teller.linger", idempotency_key=True))

    threads = [threading.Thread(target=wait, args=(client,)) for client in clients for _ in range(2)]
    for each in threads:
        each.start()
    wait_until(lambda: sum(actor["in_flight"] for w in first.status()["workers"] for actor in w["actors"]) == 4)
    kill_supervisor(first)
    with teller_graph("tellers", folder).run():
        (folder / "end").touch()
        for each in threads:
            each.join()
    assert len(answers) == 4
    for client in clients:
        client.close()
    first.kill()


def connect_until_refused(clients: list[Any]) -> None:
    while True:
        clients.append(slabwire.connect("tellers"))
        clients[-1].call("teller.key")


def test_a_supervisor_without_descriptors_says_so(running: slabwire.Running) -> None:
    before = resource.prlimit(running.pid, resource.RLIMIT_NOFILE)
    clients = [slabwire.connect("tellers")]
    for room in (2, 3, 4, 5):  # one for who asks where to go; then there is none for a client, or none for its bell
        taken = max(map(int, os.listdir(f"/proc/{running.pid}/fd")))
        resource.prlimit(running.pid, resource.RLIMIT_NOFILE, (taken + room, before[1]))
        with pytest.raises(slabwire.Overloaded, match="the supervisor is out of descriptors"):
            connect_until_refused(clients)
        resource.prlimit(running.pid, resource.RLIMIT_NOFILE, before)
    for each in clients:
        assert each.call("teller.key", retries=OFTEN) == [None, 1]
        each.close()


def test_a_graph_is_replaced_under_load(folder: Path) -> None:
    """Drained, stopped and started again: whoever asks again notices nothing."""
    first = start(folder)
    over, wrong, count = threading.Event(), [], [0] * 3

    def work(thread: int) -> None:
        with Client("tellers", retries=OFTEN) as client:
            while not over.is_set():
                count[thread] += 1
                key = f"{thread} {count[thread]}"
                answer = client.call("teller.plain", count[thread], X, idempotency_key=key)
                if answer != [count[thread], int(X.sum()), key]:
                    wrong.append(answer)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for each in threads:
        each.start()
    wait_until(lambda: min(count) > 20)
    assert first.stop() == 0
    before = list(count)
    with teller_graph("tellers", folder).run():
        wait_until(lambda: all(now > then + 20 for now, then in zip(count, before, strict=True)))
        over.set()
        for each in threads:
            each.join()
    assert wrong == []


def test_a_graph_that_is_just_starting_is_awaited(folder: Path) -> None:
    with pytest.raises(slabwire.Disconnected, match="no graph named"):
        slabwire.connect("tellers", wait_s=0.01)
    found: list[Any] = []

    def connect() -> None:
        with slabwire.connect("tellers", wait_s=60) as client:
            found.append(client.call("teller.key"))

    async def connect_async() -> None:
        async with slabwire.connect_async("tellers", wait_s=60) as client:
            found.append(await client.call("teller.key"))

    threads = [threading.Thread(target=connect), threading.Thread(target=lambda: asyncio.run(connect_async()))]
    for each in threads:
        each.start()
    with teller_graph("tellers", folder).run():
        for each in threads:
            each.join()
    assert found == [[None, 1], [None, 1]]
