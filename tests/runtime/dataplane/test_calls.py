"""What clients and actors may say to each other, on real graphs."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import slabwire
from lanes import lanes_of
from slabwire import Graph
from stage import Batches, Echo, Hooks, Passes, Point, Streams, Waits


def stage_graph(folder: Path) -> Graph:
    graph = Graph("stage")
    echo = graph.add(Echo)
    streams = graph.add(Streams)
    waits = graph.add(Waits)
    batches = graph.add(Batches)
    hooks = graph.add(Hooks, path=str(folder / "hooks"), worker="shared")
    lonely = graph.add(Passes, name="lonely", worker="shared")
    first, second = graph.add(Passes, name="first"), graph.add(Passes, name="second", replicas=2)
    graph.connect(first.on, second.on)
    graph.connect(second.on, echo.double)
    ports = [
        getattr(echo, name) for name in ("echo", "double", "pair", "norm", "grey", "nothing", "fail", "unsendable")
    ]
    graph.expose(*ports, echo.who, echo.attempt, echo.time_left)
    graph.expose(*(getattr(streams, name) for name in ("upto", "frames", "ticks", "breaks", "forever")))
    graph.expose(waits.sleep, waits.many, waits.total, waits.cancelled)
    graph.expose(batches.square, batches.largest_batch, hooks.state, lonely.on, first.on)
    return graph


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("stage")


@pytest.fixture(scope="module")
def running(folder: Path) -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLABWIRE_RUN_DIR", str(folder))
        with stage_graph(folder).run() as graph:
            yield graph
        assert (folder / "hooks").read_text() == "stopped"


@pytest.fixture
def client(running: Any) -> Iterator[Any]:
    with slabwire.connect(running.name) as connected:
        yield connected


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        -5,
        1 << 63,
        2.5,
        "text ✓",
        b"bytes",
        [1, [2, "three"]],
        {"a": {"b": [None]}},
        "x" * 100_000,
        b"\0" * 3_000_000,
    ],
    ids=lambda value: type(value).__name__,
)
def test_plain_values_come_back_as_they_were(client: Any, value: Any) -> None:
    assert client.call("echo.echo", value) == value


def test_calls_that_cannot_be_sent_take_no_place(client: Any) -> None:
    for _ in range(300):
        with pytest.raises(slabwire.MessageError):
            client.call("echo.echo", object())
    assert client.call("echo.echo", 5) == 5


@pytest.mark.parametrize(
    "dtype", [np.bool_, np.int8, np.uint64, np.float16, np.complex128, ml_dtypes.bfloat16, ">i4", "M8[ns]", "U7"]
)
@pytest.mark.parametrize("shape", [(), (0, 3), (7,), (30, 40, 3)])
def test_tensors_come_back_as_they_were(client: Any, dtype: Any, shape: tuple[int, ...]) -> None:
    sent = np.arange(int(np.prod(shape)), dtype=np.int64).reshape(shape).astype(dtype)
    back = client.call("echo.echo", sent)
    assert back.dtype == sent.dtype
    assert back.shape == sent.shape
    assert back.tobytes() == sent.tobytes()
    assert not back.flags.writeable


def test_strided_tensors_arrive_whole(client: Any) -> None:
    sent = np.arange(60_000, dtype=np.float32).reshape(200, 300)[::-2, 5::3].T
    assert np.array_equal(client.call("echo.echo", sent), sent)


def test_tensors_may_stand_anywhere_in_a_message(client: Any) -> None:
    sent: dict[str, Any] = {
        "a": [np.arange(5), {"b": np.ones((500, 500))}],
        "c": "between",
        "d": np.zeros(100_000, np.uint8),
    }
    back = client.call("echo.echo", sent)
    assert np.array_equal(back["a"][0], sent["a"][0])
    assert np.array_equal(back["a"][1]["b"], sent["a"][1]["b"])
    assert back["c"] == "between"
    assert back["d"].nbytes == 100_000


def test_a_loan_is_answered_and_forwarded_through_replicas(client: Any) -> None:
    sent = np.arange(100_000, dtype=np.float64)
    for _ in range(20):
        assert np.array_equal(client.call("first.on", sent), sent * 2)


def test_kept_answers_keep_their_bytes(client: Any) -> None:
    kept = [client.call("echo.double", np.full(50_000, i, np.int32)) for i in range(40)]
    gc.collect()
    for _ in range(50):
        client.call("echo.double", np.full(50_000, 999, np.int32))
    assert all((array == 2 * i).all() for i, array in enumerate(kept))


def test_fields_by_position_and_name(client: Any) -> None:
    assert client.call("echo.pair", 1.0) == {"x": 1.0, "y": 1.0}
    assert client.call("echo.pair", y=2.0, x=3.0) == {"x": 3.0, "y": 2.0}
    assert client.call("echo.norm", Point(3.0, 4.0)) == 5.0
    assert client.call("echo.nothing") is None


@pytest.mark.parametrize(
    ("target", "arguments", "fields", "kind", "words"),
    [
        ("echo.ecco", (1,), {}, slabwire.UnknownPort, ["echo.ecco", "did you mean 'echo.echo'"]),
        ("echo.pair", (), {}, slabwire.MessageError, ["echo.pair", "'x' is missing"]),
        ("echo.pair", (1.0,), {"z": 2}, slabwire.MessageError, ["no field 'z'"]),
        ("echo.grey", (np.zeros((4, 4, 3)),), {}, slabwire.MessageError, ["image", "float64"]),
        ("echo.grey", (np.zeros((4, 3), np.float32),), {}, slabwire.MessageError, ["image", "(4, 3)"]),
        ("echo.echo", ({"a": [object()]},), {}, slabwire.MessageError, ["message['x']['a'][0]", "object"]),
        ("echo.echo", ({1: 2},), {}, slabwire.MessageError, ["key 1", "str"]),
        ("echo.echo", (np.array([object()]),), {}, slabwire.MessageError, ["objects"]),
        ("streams.upto", (1,), {}, slabwire.MessageError, ["stream"]),
        ("echo.fail", ("my words",), {}, slabwire.HandlerError, ["ValueError: my words", "stage.py"]),
        ("echo.unsendable", (), {}, slabwire.MessageError, ["message['inner'][1]", "object"]),
        ("waits.sleep", (3600.0,), {"timeout_s": 0.05}, slabwire.DeadlineExceeded, ["waits.sleep", "timeout_s"]),
    ],
)
def test_mistakes_are_named(
    client: Any,
    target: str,
    arguments: tuple[Any, ...],
    fields: dict[str, Any],
    kind: type[Exception],
    words: list[str],
) -> None:
    with pytest.raises(kind) as caught:
        client.call(target, *arguments, **fields)
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert client.call("echo.echo", "still here") == "still here"


def test_a_deadline_travels(client: Any) -> None:
    assert 0 < client.call("echo.time_left", timeout_s=30.0) <= 30.0
    assert client.call("echo.time_left", timeout_s=None) is None


def test_streams_of_every_kind(client: Any) -> None:
    assert list(client.stream("streams.upto", 1000)) == list(range(1000))
    assert list(client.stream("streams.upto", 0)) == []
    assert list(client.stream("streams.ticks", 300)) == list(range(300))
    frames = client.stream("streams.frames", 300, 70_000)
    assert all((frame == i % 251).all() for i, frame in enumerate(frames))
    assert list(client.stream("echo.echo", "one")) == ["one"]


def test_a_stream_that_breaks_ends_with_its_error(client: Any) -> None:
    items = client.stream("streams.breaks", 3)
    assert [next(items) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(slabwire.HandlerError, match="broke off"):
        next(items)


def test_leaving_a_stream_closes_its_generator(client: Any, tmp_path: Path) -> None:
    mark = tmp_path / "closed"
    for item in client.stream("streams.forever", str(mark)):
        if item == 10:
            break
    while not mark.exists():
        list(client.stream("streams.upto", 1))


def test_a_stream_that_is_not_read_holds_up_nobody(client: Any, tmp_path: Path) -> None:
    stalled = client.stream("streams.forever", str(tmp_path / "mark"))
    assert next(stalled) == 0
    for _ in range(100):
        assert list(client.stream("streams.upto", 20)) == list(range(20))
    assert [next(stalled) for _ in range(2000)] == list(range(1, 2001))
    stalled.close()


def test_coroutines_overlap_and_call_each_other(client: Any) -> None:
    assert client.call("waits.many", 300) == list(range(300))
    assert client.call("waits.total", 100) == 4950


def test_a_cancelled_call_cancels_its_coroutine(client: Any, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    with pytest.raises(slabwire.DeadlineExceeded):
        client.call("waits.cancelled", str(mark), timeout_s=1.0)
    while not mark.exists():
        client.call("waits.sleep", 0.0)


def test_threads_share_a_client(client: Any) -> None:
    wrong: list[int] = []

    def work(seed: int) -> None:
        numbers = range(seed * 1000, seed * 1000 + 100)
        wrong.extend(i for i in numbers if client.call("echo.echo", i) != i)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert wrong == []


def test_batches_gather(running: Any, client: Any) -> None:
    async def ask() -> list[int]:
        async with slabwire.connect_async(running.name) as client:
            return list(await asyncio.gather(*(client.call("batches.square", i) for i in range(10))))

    assert asyncio.run(ask()) == [i * i for i in range(10)]
    assert 2 <= client.call("batches.largest_batch") <= 4


def test_the_asyncio_client_has_the_same_verbs(running: Any) -> None:
    async def talk() -> None:
        async with slabwire.connect_async(running.name) as client:
            assert "echo.echo" in client.ports
            assert await client.call("echo.pair", 1.0, y=5.0) == {"x": 1.0, "y": 5.0}
            assert [item async for item in client.stream("streams.upto", 50)] == list(range(50))
            with pytest.raises(slabwire.UnknownPort):
                await client.call("echo.nowhere")
            with pytest.raises(slabwire.DeadlineExceeded):
                await client.call("waits.sleep", 3600.0, timeout_s=0.05)
            many = await asyncio.gather(*(client.call("waits.sleep", 0.001) for _ in range(300)))
            assert many == [0.001] * 300

    asyncio.run(talk())


def test_hooks_may_call_others(client: Any) -> None:
    assert client.call("hooks.state") == "started"
    assert client.call("lonely.on", np.arange(3)).tolist() == [0, 1, 2]


def test_a_closed_client_says_so(running: Any) -> None:
    client = slabwire.connect(running.name)
    kept = client.call("echo.double", np.arange(10_000))
    client.close()
    assert (kept == np.arange(10_000) * 2).all()
    with pytest.raises(slabwire.Disconnected, match="closed"):
        client.call("echo.echo", 1)


def test_a_graph_that_is_not_there(running: Any) -> None:
    with pytest.raises(slabwire.Disconnected, match=r"stagee.*did you mean 'stage'"):
        slabwire.connect("stagee")


def test_a_slow_reader_stops_its_own_stream_alone(running: Any, client: Any, tmp_path: Path) -> None:
    """However often others read, no more than a window of a stream waits for a reader that does not."""
    stream = client.stream("streams.forever", str(tmp_path / "mark"))
    assert next(stream) == 0
    for i in range(300):
        assert client.call("echo.echo", i) == i
        assert list(client.stream("streams.upto", 2)) == [0, 1]
    (pending,) = lanes_of(client).caller._pending.values()
    assert 0 < len(pending.arrived) <= 64
    assert [next(stream) for _ in range(1000)] == list(range(1, 1001))
    stream.close()

    async def talk() -> None:
        async with slabwire.AsyncClient(running.name) as other:
            items = other.stream("streams.forever", str(tmp_path / "other"))
            assert await anext(items) == 0
            for i in range(100):
                await other.call("echo.echo", i)
            (waiting,) = lanes_of(other).caller._pending.values()
            assert len(waiting.arrived) <= 64
            await items.aclose()

    asyncio.run(talk())


def test_a_stream_that_nobody_starts_is_no_work(running: Any, client: Any) -> None:
    client.stream("streams.forever", "/nowhere")
    assert client.call("echo.echo", 1) == 1
    assert all(actor["in_flight"] == 0 for worker in running.status()["workers"] for actor in worker["actors"])
    with pytest.raises(slabwire.UnknownPort):
        client.stream("streams.nowhere")


@pytest.mark.parametrize("timeout_s", [-1.0, float("nan")])
def test_a_timeout_that_is_no_time(client: Any, timeout_s: float) -> None:
    with pytest.raises(slabwire.MessageError, match="timeout_s"):
        client.call("echo.echo", 1, timeout_s=timeout_s)
