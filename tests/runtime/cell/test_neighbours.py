"""What callers that leave, stall or die may do to others: nothing."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import slabwire
from lanes import lanes_of
from slabwire import Graph
from slabwire.runtime.message.header import Kind
from slabwire.runtime.message.payload import Payload
from stage import (
    Asks,
    Checks,
    Collects,
    Echo,
    Floods,
    Fragile,
    Keeps,
    Lasts,
    Loans,
    Passes,
    Patient,
    Positive,
    Reads,
    Relays,
    SlowToStart,
    Streams,
    TwoLetters,
    Waits,
)
from waiting import wait_until, worker_of


@pytest.fixture(autouse=True)
def run_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLABWIRE_RUN_DIR", str(tmp_path / "run"))


def ticks_of(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def test_arrays_outlive_the_client_that_received_them() -> None:
    graph = Graph("lends")
    graph.expose(graph.add(Loans).filled)
    with graph.run() as running:
        with slabwire.connect("lends") as client:
            kept = client.call("loans.filled", 1.0)
        for value in range(2, 40):
            assert running.client.call("loans.filled", float(value))[0] == value
        assert (kept == 1.0).all()
        del kept
        wait_until(lambda: running.status()["clients"] == 1)


def test_what_a_dead_actor_had_asked_for_is_cancelled(tmp_path: Path) -> None:
    """Its successor does not know of it, and nobody else would ever read on."""
    graph = Graph("orphans")
    graph.add(Streams, concurrency=1)
    graph.expose(graph.add(Relays).forever)
    with graph.run() as running:
        for number in range(2):
            items = running.client.stream("relays.forever", str(tmp_path / f"closed{number}"), timeout_s=60)
            assert next(items) == 0
            os.kill(worker_of(running, "relays")["pid"], signal.SIGKILL)
            with pytest.raises(slabwire.Interrupted):
                list(items)
            wait_until((tmp_path / f"closed{number}").exists)


def test_coroutines_cancelled_at_once_leave_no_trace(tmp_path: Path) -> None:
    graph = Graph("cancels")
    graph.expose(graph.add(Waits, concurrency=8).sleep)

    async def talk(name: str) -> None:
        async with slabwire.connect_async(name) as client:
            for _ in range(40):
                task = asyncio.ensure_future(client.call("waits.sleep", 3600.0))
                await asyncio.sleep(0)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
            assert await client.call("waits.sleep", 0.0) == 0.0

    with graph.run() as running:
        asyncio.run(talk("cancels"))
        wait_until(lambda: worker_of(running, "waits")["actors"][0]["in_flight"] == 0)


def test_a_stream_that_was_left_costs_nothing_more(tmp_path: Path) -> None:
    graph = Graph("left")
    graph.expose(graph.add(Streams).forever)
    with graph.run() as running:
        items = running.client.stream("streams.forever", str(tmp_path / "closed"))
        assert next(items) == 0
        items.close()
        wait_until(lambda: (tmp_path / "closed").exists())
        parked = wait_until(lambda: worker_of(running, "streams"))
        before = ticks_of(parked["pid"])
        time.sleep(1.0)  # a length of time over which use of the processor is counted
        assert ticks_of(parked["pid"]) - before < 20, "a parked worker uses no processor time"


def test_a_cancel_overtakes_what_waits_for_a_place(tmp_path: Path) -> None:
    graph = Graph("overtakes")
    streams = graph.add(Streams, concurrency=1)
    graph.expose(streams.forever, streams.upto)
    with graph.run() as running, ThreadPoolExecutor(1) as pool:
        endless = running.client.stream("streams.forever", str(tmp_path / "closed"))
        assert next(endless) == 0
        with slabwire.connect("overtakes") as other:
            waiting = pool.submit(list, running.client.stream("streams.upto", 3))
            wait_until(lambda: worker_of(running, "streams")["actors"][0]["waiting"])
            assert other.ports
            endless.close()
            assert waiting.result() == [0, 1, 2]


def test_a_caller_that_takes_nothing_in_holds_up_nobody() -> None:
    graph = Graph("stalls")
    graph.expose(graph.add(Echo).echo)
    with graph.run() as running, slabwire.connect("stalls") as careless:
        for _ in range(600):
            with pytest.raises((slabwire.DeadlineExceeded, slabwire.Overloaded)):
                careless.call("echo.echo", 1, timeout_s=0)
        assert running.client.call("echo.echo", 2) == 2


def test_messages_are_handled_once_when_a_client_comes_during_a_restart(tmp_path: Path) -> None:
    graph = Graph("comes")
    graph.expose(graph.add(SlowToStart, folder=str(tmp_path)).note)
    with graph.run() as running, ThreadPoolExecutor(1) as pool:
        assert running.client.call("slowtostart.note", 0) == 0
        # The answer comes before the input is given back: what dies in between handles it again.
        wait_until(lambda: worker_of(running, "slowtostart")["actors"][0]["waiting"] == 0)
        os.kill(worker_of(running, "slowtostart")["pid"], signal.SIGKILL)
        wait_until(lambda: (tmp_path / "start-1").exists())
        with slabwire.connect("comes") as client:
            first = pool.submit(client.call, "slowtostart.note", 1)
            wait_until(lambda: worker_of(running, "slowtostart")["actors"][0]["waiting"])
            (tmp_path / "go").touch()
            assert first.result() == 1
            assert [client.call("slowtostart.note", n) for n in range(2, 50)] == list(range(2, 50))
    assert (tmp_path / "noted").read_text().split() == [str(n) for n in range(50)]


def test_a_forwarder_dies_after_the_owner_of_what_it_forwarded_has_left() -> None:
    graph = Graph("relays")
    first, second, keeps = graph.add(Passes, name="first"), graph.add(Passes, name="second"), graph.add(Keeps)
    graph.connect(first.on, second.on)
    graph.connect(second.on, keeps.take)
    graph.expose(first.on, keeps.first)
    with graph.run() as running:
        with slabwire.connect("relays") as client:
            assert client.call("first.on", np.full(50_000, 7.0)) == 1
        wait_until(lambda: running.status()["clients"] == 0)
        pid = worker_of(running, "second")["pid"]
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: (w := worker_of(running, "second"))["state"] == "ready" and w["pid"] != pid)
        assert running.client.call("keeps.first") == 7.0
        assert running.client.call("first.on", np.full(50_000, 8.0)) == 2
        assert running.client.call("keeps.first") == 7.0


def test_a_poisonous_message_takes_no_other_with_it() -> None:
    graph = Graph("poison")
    graph.expose(graph.add(Fragile).take)
    with graph.run() as running, ThreadPoolExecutor(5) as pool:
        answers = [pool.submit(running.client.call, "fragile.take", n) for n in (1, 2, -1, 3, 4)]
        with pytest.raises(slabwire.DeadLetter):
            answers[2].result()
        assert [answers[i].result() for i in (0, 1, 3, 4)] == [1, 2, 3, 4]


def test_one_bad_item_of_a_batch_is_one_error() -> None:
    graph = Graph("bad-item")
    graph.expose(graph.add(Checks).square)
    with graph.run() as running, ThreadPoolExecutor(3) as pool:
        answers = [pool.submit(running.client.call, "checks.square", Positive(n)) for n in (2, 3)]
        bad = pool.submit(running.client.call, "checks.square", {"n": -1})
        assert [each.result() for each in answers] == [4, 9]
        with pytest.raises(slabwire.HandlerError, match="negative"):
            bad.result()
        assert worker_of(running, "checks")["restarts"] == 0


def test_a_handler_that_awaits_something_cancelled_answers() -> None:
    graph = Graph("awaits")
    graph.expose(graph.add(Fragile).awaits_cancelled)
    with graph.run() as running, pytest.raises(slabwire.Cancelled):
        running.client.call("fragile.awaits_cancelled")


def test_two_messages_of_one_loan_keep_their_texts_apart(tmp_path: Path) -> None:
    graph = Graph("letters")
    letters, reads = graph.add(TwoLetters), graph.add(Reads, path=str(tmp_path / "read"))
    graph.connect(letters.out, reads.read, capacity=1)
    graph.expose(letters.go, reply=letters.go)
    with graph.run() as running, ThreadPoolExecutor(4) as pool:
        answers = [pool.submit(running.client.call, "twoletters.go", n) for n in range(4)]
        wait_until(lambda: worker_of(running, "twoletters")["actors"][0]["outbox"])
        (tmp_path / "read.go").touch()
        assert [each.result()["text"][:3] for each in answers] == ["BBB"] * 4
        wait_until(lambda: (tmp_path / "read").exists() and len((tmp_path / "read").read_text().split()) == 4)
    assert (tmp_path / "read").read_text().split() == ["AAA"] * 4


def test_memory_that_lies_idle_serves_other_sizes() -> None:
    graph = Graph("sizes")
    graph.expose(graph.add(Loans, memory_bytes=16 << 20).filled)
    with graph.run() as running:
        size = 10_000
        while size < 3_000_000:
            assert running.client.call("loans.filled", 1.0, size).nbytes == size // 4 * 4
            size = size * 6 // 5


def test_an_actor_that_ends_before_it_is_ready_ends_the_start() -> None:
    graph = Graph("ends")
    graph.expose(graph.add(Ends, restart="temporary").use)
    with pytest.raises(slabwire.StartError, match="ends could not start"), graph.run():
        pass


class Ends(slabwire.Actor):
    def __init__(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def use(self) -> None:
        """Never runs."""


def test_an_asyncio_client_hears_of_the_end(tmp_path: Path) -> None:
    async def talk(running: Any) -> None:
        async with slabwire.connect_async("over") as client:
            assert await client.call("collects.take", 1) == 1
            await asyncio.to_thread(running.stop)
            while True:
                try:
                    await client.call("collects.take", 2, timeout_s=30)
                except slabwire.Disconnected:
                    return
                except slabwire.DeadlineExceeded:
                    pytest.fail("it waited for an answer that could not come")

    graph = Graph("over")
    graph.expose(graph.add(Collects, path=str(tmp_path / "seen")).take)
    running = graph.run().__enter__()
    asyncio.run(talk(running))


KINDS = ("plain", "batch", "coroutine", "generator", "async_generator")


def kill_all(running: Any, names: Iterable[str]) -> None:
    for name in names:
        os.kill(worker_of(running, name)["pid"], signal.SIGKILL)


def blocks_out(client: Any) -> int:
    endpoint = lanes_of(client).endpoint
    endpoint.reap()
    return int(endpoint.pool.blocks_out)


@pytest.mark.parametrize("value", ["t" * 1000, np.arange(50_000.0)], ids=["text", "array"])
def test_an_input_is_whole_when_it_is_handled_again(tmp_path: Path, value: Any) -> None:
    """Whatever its handler let go of: the sender may not use the block for anything else meanwhile."""
    graph = Graph("again")
    for kind in KINDS:
        graph.expose(getattr(graph.add(Patient, name=kind, folder=str(tmp_path)), kind))
    graph.expose(graph.add(Echo).echo)
    with graph.run() as running, ThreadPoolExecutor(len(KINDS)) as pool:
        client = running.client
        answers = [pool.submit(lambda port: list(client.stream(port, value)), f"{kind}.{kind}") for kind in KINDS]
        wait_until(lambda: len(list(tmp_path.glob("*-began"))) == len(KINDS))
        for _ in range(30):
            client.call("echo.echo", value)
        kill_all(running, KINDS)
        (tmp_path / "go").touch()
        seen = value if isinstance(value, str) else float(value.sum())
        assert [each.result() for each in answers] == [[[seen, 2]]] * len(KINDS)
        wait_until(lambda: not blocks_out(client))


def test_what_actors_send_is_whole_when_it_is_handled_again(tmp_path: Path) -> None:
    """Requests of another actor, items along an edge, and blocks that were handed on."""
    graph = Graph("sent-again")
    asks, passes, echo = graph.add(Asks), graph.add(Passes), graph.add(Echo)
    names = ["asked", "items", "passed"]
    asked, items, passed = (graph.add(Patient, name=each, folder=str(tmp_path)) for each in names)
    graph.connect(asks.texts, items.async_generator)
    graph.connect(passes.on, passed.coroutine)
    graph.expose(asks.ask, asks.texts, passes.on, echo.echo, asked.async_generator)
    array = np.arange(50_000.0)
    with graph.run() as running, ThreadPoolExecutor(3) as pool:
        client = running.client
        through = pool.submit(client.call, "asks.ask", "asked.async_generator", "t" * 1000)
        handed_on = pool.submit(client.call, "passes.on", array)
        wait_until(lambda: len(list(tmp_path.glob("*-began"))) == 2)
        along = pool.submit(lambda: list(client.stream("asks.texts", 5)))
        wait_until(lambda: worker_of(running, "items")["actors"][0]["in_flight"] == 5)
        for _ in range(30):
            client.call("echo.echo", array)
            client.call("asks.ask", "echo.echo", "other" * 200)
        kill_all(running, names)
        (tmp_path / "go").touch()
        assert through.result() == [["t" * 1000, 2]]
        assert handed_on.result() == [float(array.sum()), 2]
        assert sorted(along.result()) == [[str(i) * 1000, 2] for i in range(5)]


def test_a_cancel_finds_room_however_full_the_lane_is(tmp_path: Path) -> None:
    """What waits at the front waits for nothing but the end of the stream that it would end."""
    graph = Graph("full")
    graph.expose(graph.add(Lasts, concurrency=1).last)

    async def talk() -> None:
        async with slabwire.connect_async("full") as client:

            async def read(name: str) -> list[str]:
                return [item async for item in client.stream("lasts.last", str(tmp_path / name))]

            async def fill() -> None:
                while True:
                    taken_back = asyncio.ensure_future(read("taken-back"))
                    await asyncio.sleep(0.001)
                    taken_back.cancel()
                    with contextlib.suppress(asyncio.CancelledError):
                        await taken_back

            first = client.stream("lasts.last", str(tmp_path / "first"))
            await anext(first)
            (tmp_path / "second.go").touch()
            second = asyncio.ensure_future(read("second"))
            with pytest.raises(slabwire.Overloaded):
                await fill()
            await first.aclose()
            assert await second == [str(tmp_path / "second")]

    with graph.run():
        asyncio.run(talk())
    assert (tmp_path / "first.closed").exists()


def test_what_a_dead_actor_had_asked_for_is_cancelled_through_a_full_lane(tmp_path: Path) -> None:
    graph = Graph("flooded")
    graph.add(Lasts, concurrency=1)
    graph.expose(graph.add(Floods).flood)
    with graph.run() as running, ThreadPoolExecutor(1) as pool, slabwire.connect("flooded") as client:
        answer = pool.submit(client.call, "floods.flood", str(tmp_path / "flood"), timeout_s=None)
        wait_until((tmp_path / "flood.full").exists)
        kill_all(running, ["floods"])
        wait_until((tmp_path / "flood.closed").exists)
        client.close()
        with pytest.raises(slabwire.Disconnected):
            answer.result()


def test_a_cancel_waits_for_room_in_an_edge(tmp_path: Path) -> None:
    graph = Graph("edge-full")
    echo, lasts = graph.add(Echo), graph.add(Lasts, concurrency=2)
    graph.connect(echo.echo, lasts.last, capacity=1)
    graph.expose(echo.echo)
    with graph.run() as running, ThreadPoolExecutor(1) as pool:
        left, kept = (running.client.stream("echo.echo", str(tmp_path / each)) for each in ("left", "kept"))
        assert next(left) != next(kept)
        third = pool.submit(list, running.client.stream("echo.echo", str(tmp_path / "third")))
        wait_until(lambda: worker_of(running, "lasts")["actors"][0]["waiting"])
        left.close()
        wait_until(lambda: not worker_of(running, "echo")["actors"][0]["waiting"])  # it has heard of it
        (tmp_path / "third.go").touch()
        (tmp_path / "kept.go").touch()
        assert list(kept) == []
        assert third.result() == [str(tmp_path / "third")]
        wait_until((tmp_path / "left.closed").exists)


def entry_of(client: Any) -> Any:
    (entry,) = lanes_of(client).caller._entries.values()
    return entry


def scribble(client: Any) -> None:
    """Publishes a record that no client writes."""
    entry = entry_of(client)
    entry.segment.bytes[entry.slot() : entry.slot() + 256] = bytes([99]) * 256
    entry.publish()


def test_a_corrupt_record_behind_one_that_waits_harms_only_its_writer(tmp_path: Path) -> None:
    graph = Graph("behind")
    graph.expose(graph.add(Lasts, concurrency=1, hang_after_s=1).last)
    with graph.run() as running, ThreadPoolExecutor(1) as pool:
        pid = worker_of(running, "lasts")["pid"]
        items = running.client.stream("lasts.last", str(tmp_path / "good"))
        assert next(items)
        with slabwire.Client("behind") as bad:
            waiting = pool.submit(list, bad.stream("lasts.last", str(tmp_path / "bad")))
            wait_until(lambda: worker_of(running, "lasts")["actors"][0]["waiting"])
            scribble(bad)
            with pytest.raises(slabwire.Disconnected):
                waiting.result()
        assert worker_of(running, "lasts")["actors"][0]["waiting"] == 0
        (tmp_path / "good.go").touch()
        assert list(items) == []
        assert worker_of(running, "lasts")["pid"] == pid


@pytest.mark.parametrize("head", [False, True], ids=["record", "head"])
def test_a_successor_parts_with_a_corrupt_client(tmp_path: Path, head: bool) -> None:
    graph = Graph("successor")
    graph.expose(graph.add(SlowToStart, folder=str(tmp_path)).note)
    with graph.run() as running, ThreadPoolExecutor(1) as pool, slabwire.Client("successor") as bad:
        assert [each.call("slowtostart.note", 0) for each in (bad, running.client)] == [0, 0]
        kill_all(running, ["slowtostart"])
        wait_until((tmp_path / "start-1").exists)
        waiting = pool.submit(bad.call, "slowtostart.note", 1)
        wait_until(lambda: worker_of(running, "slowtostart")["actors"][0]["waiting"])
        if head:
            entry_of(bad)._words[entry_of(bad)._head_word] = 1 << 40
        else:
            scribble(bad)
        (tmp_path / "go").touch()
        assert running.client.call("slowtostart.note", 2) == 2
        if head:
            with pytest.raises(slabwire.Disconnected):
                waiting.result()
        assert worker_of(running, "slowtostart")["restarts"] == 1


def test_a_reader_that_scribbles_harms_only_itself() -> None:
    graph = Graph("reader")
    graph.expose(graph.add(Streams).ticks)
    with graph.run() as running, slabwire.Client("reader") as bad:
        items = bad.stream("streams.ticks", 1 << 30)
        assert [next(items) for _ in range(100)] == list(range(100))
        (lane,) = lanes_of(bad).caller.replies
        lane._words[lane._tail_word] = 1 << 50
        lane._tail_word = lane._released  # so that it stands
        with pytest.raises(slabwire.Disconnected):
            list(items)
        wait_until(lambda: worker_of(running, "streams")["actors"][0]["in_flight"] == 0)
        assert list(running.client.stream("streams.ticks", 3)) == [0, 1, 2]
        assert worker_of(running, "streams")["restarts"] == 0
        del lane


def test_no_client_ends_the_calls_of_another(tmp_path: Path) -> None:
    graph = Graph("forged")
    graph.expose(graph.add(Lasts).last)
    with graph.run() as running, slabwire.Client("forged") as bad:
        (tmp_path / "bad.go").touch()
        assert list(bad.stream("lasts.last", str(tmp_path / "bad"))) == [str(tmp_path / "bad")]
        items = running.client.stream("lasts.last", str(tmp_path / "good"))
        assert next(items)
        victim = lanes_of(running.client)
        (pending,) = victim.caller._pending.values()
        head = (0, 0, 0, victim.endpoint.identifier, 0, pending.request, 0, 0, 0, 0, 0, 0, 0)
        never = bad.stream("lasts.last", str(tmp_path / "never"))  # before: who is parted with connects anew
        assert next(never)
        Payload(None, lanes_of(bad).endpoint.pool).publish(entry_of(bad), Kind.CANCEL, 0, head)
        with pytest.raises(slabwire.Disconnected):
            next(never)
        (tmp_path / "good.go").touch()
        assert list(items) == []
