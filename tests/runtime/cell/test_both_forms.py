"""What graphs promise, in processes of their own and in this one: the same table of behaviours over both forms."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jaxtyping import Float32

import slabwire
from slabwire import Actor, Graph, Output, SlabwireError, batched, resumable
from waiting import wait_until


@dataclass
class Point:
    x: int
    y: int = 2


class TooLarge(SlabwireError):
    code = "too_large_here"


class Kinds(Actor):
    """A handler of every kind."""

    def __init__(self, factor: int = 3) -> None:
        self.factor = factor
        self.started = 0
        self.largest = 0

    async def on_start(self) -> None:
        self.started = await self.call("later.ready")  # one that is added after this one

    def plain(self, n: int, factor: int | None = None) -> int:
        return n * (factor or self.factor)

    def start(self) -> int:
        return self.started

    def generator(self, n: int) -> Iterator[int]:
        yield from range(n)

    async def coroutine(self, n: int) -> list[int]:
        return list(await asyncio.gather(*(self.call("later.square", each) for each in range(n))))

    async def async_generator(self, n: int) -> AsyncIterator[int]:
        async for each in self.stream("kinds.generator", n):
            await asyncio.sleep(0)
            yield each + 1

    @batched(max_size=4, max_wait_s=0.02)
    def batch(self, ns: list[int]) -> list[int]:
        self.largest = max(self.largest, len(ns))
        return [n * n for n in ns]

    def largest_batch(self) -> int:
        return self.largest

    @resumable
    def from_sent(self, n: int, sent: int = 0) -> Iterator[int]:
        yield from range(sent, n)

    def point(self, it: Point) -> dict[str, int]:
        assert isinstance(it, Point)
        return {"sum": it.x + it.y}

    def image(self, pixels: Float32[np.ndarray, "h w"]) -> Float32[np.ndarray, "h w"]:
        assert not pixels.flags.writeable
        doubled = self.loan(pixels.shape, np.float32)
        np.multiply(pixels, 2, out=doubled)
        return doubled

    def echo(self, x: Any) -> Any:
        return x

    def nothing(self) -> None:
        return None

    def fails(self) -> None:
        raise ValueError("it failed")

    def refuses(self) -> None:
        raise TooLarge("over 100")

    def breaks_off(self, n: int) -> Iterator[int]:
        yield from range(n)
        raise RuntimeError("broke off")

    async def fails_late(self) -> None:
        await asyncio.sleep(0)
        raise KeyError("late")

    async def asks_who_fails(self) -> None:
        await self.call("kinds.fails")

    def unsendable(self) -> Any:
        return {"a": {1, 2}}

    async def sleeps(self, mark: str) -> None:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            Path(mark).write_text("cancelled")
            raise

    def forever(self, mark: str) -> Iterator[int]:
        try:
            while True:
                yield 1
        finally:
            Path(mark).write_text("closed")

    def time_left(self) -> bool:
        left = self.context.time_left_s()
        return left is not None and 0 < left < 5

    def about(self) -> tuple[str, int]:
        return self.context.actor, self.context.attempt


class Later(Actor):
    def ready(self) -> int:
        return 7

    def square(self, n: int) -> int:
        return n * n


class Collatz(Actor):
    """Goes round until it comes to 1."""

    again, done = Output(int), Output(int)

    def step(self, n: int) -> None:
        if n == 1:
            self.emit("done", n)
        else:
            self.emit("again", n // 2 if n % 2 == 0 else 3 * n + 1)


class Fans(Actor):
    """One input, two ways, of which one answers; both lead on to the same port."""

    left, right = Output(int), Output(int)

    def split(self, ns: list[int]) -> Iterator[int]:
        for n in ns:
            self.emit("left" if n % 2 else "right", n)
            yield n


class Sums(Actor):
    def __init__(self) -> None:
        self.total = 0

    def add(self, n: int) -> None:
        self.total += n

    def get(self) -> int:
        return self.total


def plus_one(n: int) -> int:
    return n + 1


def twice(n: int) -> Iterator[int]:
    yield n
    yield n


def closure(k: int) -> Callable[..., Any]:
    def times(n: int) -> int:
        return n * k

    return times


def graph_of_all() -> Graph:
    graph = Graph("forms")
    kinds, later = graph.add(Kinds, factor=3), graph.add(Later)
    collatz, fans, sums = graph.add(Collatz), graph.add(Fans), graph.add(Sums)
    stage, double = graph.add(plus_one, replicas=2, routing="round_robin"), graph.add(twice)
    times, lam = graph.add(closure(5)), graph.add(lambda n: n + 100, name="lam")
    graph.connect(collatz.again, collatz.step, when_full="reject")
    graph.connect(fans.split, stage)
    graph.connect(stage, double)
    graph.connect(fans.left, sums.add)
    graph.connect(fans.right, sums.add)
    graph.connect(times, lam)
    graph.expose(*(getattr(kinds, each) for each in Kinds.__handlers__))
    graph.expose(later.square, collatz.step, sums.get, double, times)
    graph.expose(fans.split, reply=double)
    return graph


@pytest.fixture(scope="module")
def run_directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLABWIRE_RUN_DIR", str(tmp_path_factory.mktemp("run")))
        yield


@pytest.fixture(scope="module", params=["processes", "one process"])
def running(request: pytest.FixtureRequest, run_directory: None) -> Iterator[Any]:
    with graph_of_all().run(in_process=request.param == "one process") as graph:
        client = graph.client
        warm_up(client)
        yield graph


def warm_up(client: Any) -> None:
    """What a first use leaves open for the next: lanes and blocks."""
    for port in ("sums.get", "kinds.largest_batch"):
        client.call(port)
    client.stream("kinds.forever", "/dev/null").send(None)
    for name, act in BEHAVIOURS.items():
        if "error" not in name:
            act(client)
    for act, _, _ in ERRORS.values():
        with pytest.raises(SlabwireError):
            act(client)


@pytest.fixture
def client(running: Any) -> Any:
    return running.client


PICTURE = np.arange(12_000, dtype=np.float32).reshape(100, 120)


def raised(client: Any) -> list[int]:
    """The items before a stream breaks off."""
    seen: list[int] = []
    with pytest.raises(slabwire.HandlerError, match="RuntimeError: broke off"):
        seen.extend(client.stream("kinds.breaks_off", 3))
    return seen


def concurrently(client: Any, port: str, n: int) -> list[Any]:
    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(lambda each: client.call(port, each, timeout_s=30), range(n)))


# What is done with a client, and what comes of it.
BEHAVIOURS: dict[str, Callable[[Any], Any]] = {
    "plain": lambda c: [c.call("kinds.plain", 4), c.call("kinds.plain", n=4, factor=5)],
    "on_start": lambda c: c.call("kinds.start"),
    "generator": lambda c: list(c.stream("kinds.generator", 200)),
    "empty": lambda c: list(c.stream("kinds.generator", 0)),
    "coroutine": lambda c: c.call("kinds.coroutine", 10),
    "async generator": lambda c: list(c.stream("kinds.async_generator", 70)),
    "batch": lambda c: concurrently(c, "kinds.batch", 16),
    "resumable": lambda c: list(c.stream("kinds.from_sent", 3)),
    "dataclass": lambda c: c.call("kinds.point", Point(3)),
    "tensor": lambda c: float(c.call("kinds.image", PICTURE).sum()),
    "values": lambda c: c.call("kinds.echo", {"a": [None, True, 1.5, "ü", b"x", (1, 2)], "b": {"c": np.int8(4)}}),
    "small array": lambda c: c.call("kinds.echo", np.arange(5)).tolist(),
    "nothing": lambda c: c.call("kinds.nothing"),
    "deadline": lambda c: c.call("kinds.time_left", timeout_s=4),
    "context": lambda c: c.call("kinds.about"),
    "cycle": lambda c: c.call("collatz.step", 97),
    "fan-out and fan-in": lambda c: sorted(c.stream("fans.split", [1, 2, 3])),
    "closure and lambda": lambda c: c.call("times.times", 3),
    "threads": lambda c: concurrently(c, "later.square", 40),
    "breaks off": raised,
}
EXPECTED: dict[str, Any] = {
    "plain": [12, 20],
    "on_start": 7,
    "generator": list(range(200)),
    "empty": [],
    "coroutine": [n * n for n in range(10)],
    "async generator": list(range(1, 71)),
    "batch": [n * n for n in range(16)],
    "resumable": [0, 1, 2],
    "dataclass": {"sum": 5},
    "tensor": float(PICTURE.sum() * 2),
    "values": {"a": [None, True, 1.5, "ü", b"x", [1, 2]], "b": {"c": 4}},
    "small array": [0, 1, 2, 3, 4],
    "nothing": None,
    "deadline": True,
    "context": ["kinds", 1],
    "cycle": 1,
    "fan-out and fan-in": [2, 2, 3, 3, 4, 4],
    "closure and lambda": 115,
    "threads": [n * n for n in range(40)],
    "breaks off": [0, 1, 2],
}


@pytest.mark.parametrize("name", BEHAVIOURS)
def test_behaviour(client: Any, name: str) -> None:
    assert BEHAVIOURS[name](client) == EXPECTED[name]


ERRORS: dict[str, tuple[Callable[[Any], Any], type[SlabwireError], str]] = {
    "handler": (lambda c: c.call("kinds.fails"), slabwire.HandlerError, r"kinds: ValueError: it failed \(.*forms.py:"),
    "coroutine": (lambda c: c.call("kinds.fails_late"), slabwire.HandlerError, "kinds: KeyError: 'late'"),
    "called": (lambda c: c.call("kinds.asks_who_fails"), slabwire.HandlerError, "kinds: ValueError: it failed"),
    "own class": (lambda c: c.call("kinds.refuses"), TooLarge, "over 100"),
    "unsendable": (lambda c: c.call("kinds.unsendable"), slabwire.MessageError, r"message\['a'\] is a set"),
    "wrong type": (lambda c: c.call("kinds.plain", "x"), slabwire.MessageError, "field 'n': expected int, got str"),
    "unknown": (lambda c: c.call("kinds.plane", 1), slabwire.UnknownPort, "did you mean 'kinds.plain'"),
    "hidden": (lambda c: c.call("later.ready"), slabwire.UnknownPort, "is not exposed"),
    "a stream": (lambda c: c.call("kinds.generator", 1), slabwire.MessageError, "answers with a stream"),
    "too late": (lambda c: c.call("kinds.sleeps", "/dev/null", timeout_s=0.05), slabwire.DeadlineExceeded, "in time"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_error(client: Any, name: str) -> None:
    act, kind, text = ERRORS[name]
    with pytest.raises(kind, match=text):
        act(client)


def test_leaving_a_stream_closes_its_generator(running: Any, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    for _ in running.client.stream("kinds.forever", str(mark)):
        break
    wait_until(lambda: running.status() and mark.exists())
    assert mark.read_text() == "closed"


def test_a_timeout_cancels_a_coroutine(running: Any, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    with pytest.raises(slabwire.DeadlineExceeded):
        running.client.call("kinds.sleeps", str(mark), timeout_s=0.1)
    wait_until(lambda: running.status() and mark.exists())


def test_batches_are_gathered(client: Any) -> None:
    assert concurrently(client, "kinds.batch", 16) == [n * n for n in range(16)]
    assert 1 <= client.call("kinds.largest_batch") <= 4


def test_side_branches_are_worked_off(running: Any) -> None:
    client = running.client
    before = client.call("sums.get")
    list(client.stream("fans.split", list(range(1, 11))))
    wait_until(lambda: client.call("sums.get") == before + 55)


def test_two_clients_and_a_stream_between_calls(running: Any) -> None:
    stream = running.client.stream("kinds.generator", 3)
    assert next(stream) == 0
    with slabwire.connect("forms") as other:
        assert other.call("kinds.plain", 2) == 6
        assert next(stream) == 1
    assert list(stream) == [2]
    wait_until(lambda: running.status()["clients"] == 1)


def test_status_counts(running: Any) -> None:
    (kinds,) = (each for worker in running.status()["workers"] for each in worker["actors"] if each["name"] == "kinds")
    before = kinds["handled"]
    running.client.call("kinds.plain", 1)
    (kinds,) = (each for worker in running.status()["workers"] for each in worker["actors"] if each["name"] == "kinds")
    assert kinds["handled"] == before + 1
    assert [edge["when_full"] for edge in running.status()["edges"]].count("reject") == 1
