"""Streams whose items their actor makes by the step, and groups of streams: in processes and in one process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import slabwire
from slabwire import Actor, Graph, IncomingStream, ReplyStream, SlabwireError
from waiting import wait_until


class Source(Actor):
    """Makes an item of every open stream when it is told to."""

    def __init__(self) -> None:
        self.open: list[ReplyStream[Any]] = []
        self.over = 0

    def numbers(self, first: int = 0) -> ReplyStream[Any]:
        stream: ReplyStream[Any] = self.reply_stream()
        stream.tag = first
        stream.add_done_callback(self._count_over)
        self.open.append(stream)
        return stream

    def step(self, steps: int, heed_room: bool = True) -> int:
        """How many streams got an item in the last step."""
        got = 0
        for _ in range(steps):
            self.open = [each for each in self.open if each.is_open]
            ready = [each for each in self.open if not heed_room or each.room]
            got = len(ready)
            self.publish([(each, each.tag) for each in ready])
            for each in ready:
                each.tag += 1
        return got

    def mixed(self, values: list[Any]) -> None:
        """All of them in one step, for each stream."""
        self.publish([(stream, value) for value in values for stream in self.open])

    def large(self, n: int) -> None:
        """Small and large items in turn."""
        for k in range(n):
            self.publish([(each, k) for each in self.open])
            self.publish([(each, np.full(10_000, k)) for each in self.open])

    def unsendable(self) -> None:
        """The first stream gets what no message carries."""
        self.publish([(each, object() if each is self.open[0] else 7) for each in self.open])

    def raises_amid(self) -> None:
        """After an item of the first stream."""

        def items() -> Iterator[tuple[ReplyStream[Any], Any]]:
            yield self.open[0], "before"
            raise ValueError("no more")

        self.publish(items())

    def finish(self, one_by_one: bool = False) -> None:
        streams, self.open = self.open, []
        if one_by_one:
            for each in streams:
                each.end()
        else:
            self.publish([(each, each.tag) for each in streams], ended=streams)

    def break_off(self) -> None:
        for each in self.open:
            each.fail(ValueError("broke off"))

    def counts(self) -> list[int]:
        return [sum(each.is_open for each in self.open), self.over]

    def at_once(self, n: int) -> ReplyStream[int]:
        stream: ReplyStream[int] = self.reply_stream()
        self.publish([(stream, each) for each in range(n)], ended=[stream])
        return stream

    def forgets(self) -> ReplyStream[int]:
        return None  # type: ignore[return-value]

    def misplaced(self) -> int:
        self.reply_stream()
        return 1

    @slabwire.private
    def _count_over(self, stream: ReplyStream[Any]) -> None:
        assert not stream.is_open
        self.over += 1


class Reader(Actor):
    """Reads many streams by a callback."""

    def __init__(self) -> None:
        self.seen: dict[int, list[int]] = {}
        self.ends: list[str] = []

    async def on_start(self) -> None:
        self.group = self.streams(self._on_items)

    async def begin(self, n: int) -> int:
        for each in range(n):
            self.group.begin("source.numbers", each * 1000).tag = each
        return len(self.group)

    async def wait_for(self, n: int) -> int:
        """Longer than its caller waits."""
        async with self.streams() as group:
            for _ in range(n):
                group.begin("source.numbers")
            stream, _ = await anext(group)
            if stream.error is not None:  # its time is over a moment before that of the caller may be
                raise stream.error
        return n

    def begin_plainly(self) -> int:
        group = self.streams()
        group.begin("source.numbers", timeout_s=5.0)
        return len(group)

    async def read(self) -> dict[str, Any]:
        return {"seen": {str(k): v for k, v in self.seen.items()}, "ends": self.ends, "open": len(self.group)}

    async def close(self) -> None:
        self.group.close()

    @slabwire.private
    def _on_items(self, stream: IncomingStream, items: list[Any]) -> None:
        self.seen.setdefault(stream.tag, []).extend(items)
        if stream.is_over:
            self.ends.append(type(stream.error).__name__)
        if items and items[0] == 13:
            raise RuntimeError("a callback that raises ends nothing else")


def graph_of_streams() -> Graph:
    graph = Graph("steps", client_calls=400)
    source = graph.add(Source, concurrency=500)
    reader = graph.add(Reader, calls=300)
    ports = (
        "numbers",
        "step",
        "mixed",
        "large",
        "unsendable",
        "raises_amid",
        "finish",
        "break_off",
        "counts",
        "at_once",
        "forgets",
    )
    graph.expose(*(getattr(source, each) for each in (*ports, "misplaced")), reader.begin, reader.read, reader.close)
    graph.expose(reader.wait_for, reader.begin_plainly)
    return graph


Act = Callable[[slabwire.AsyncClient], Any]


@pytest.fixture(params=[False, True], ids=["processes", "one process"])
def within(request: pytest.FixtureRequest, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[[Act], Any]:
    """Runs something with a client of the graph, in both forms."""
    monkeypatch.setenv("SLABWIRE_RUN_DIR", str(tmp_path))

    def run(act: Act) -> Any:
        async def main() -> Any:
            async with (
                graph_of_streams().run(in_process=request.param, drain_timeout_s=0.1) as running,
                slabwire.connect_async(running.name) as client,
            ):
                return await act(client)

        return asyncio.run(main())

    return run


async def collected(group: slabwire.StreamGroup, until: Callable[[dict[Any, list[Any]]], bool]) -> dict[Any, list[Any]]:
    """What has come of each stream, by its tag."""
    seen: dict[Any, list[Any]] = {}
    while not until(seen):
        stream, items = await anext(group)
        seen.setdefault(stream.tag, []).extend(items)
        if stream.is_over:
            seen[stream.tag].append(stream.error if stream.error is not None else "end")
    return seen


def begun(client: slabwire.AsyncClient, n: int) -> slabwire.StreamGroup:
    group = client.streams()
    for each in range(n):
        group.begin("source.numbers", each * 1000).tag = each
    return group


async def all_open(client: slabwire.AsyncClient, n: int) -> None:
    while (await client.call("source.counts"))[0] < n:
        await asyncio.sleep(0.01)


def test_each_stream_gets_its_own_items_in_order(within: Callable[[Act], Any]) -> None:
    async def act(client: slabwire.AsyncClient) -> dict[Any, list[Any]]:
        group = begun(client, 300)
        assert len(group) == 300
        await all_open(client, 300)
        await client.call("source.step", 5)
        await client.call("source.finish")
        seen = await collected(group, lambda seen: sum("end" in each for each in seen.values()) == 300)
        assert len(group) == 0
        assert await client.call("source.counts") == [0, 300]
        return seen

    assert within(act) == {each: [*range(each * 1000, each * 1000 + 6), "end"] for each in range(300)}


def test_a_callback_gets_them_as_well_and_one_that_raises_ends_nothing(within: Callable[[Act], Any]) -> None:
    async def act(client: slabwire.AsyncClient) -> Any:
        assert await client.call("reader.begin", 200) == 200
        await all_open(client, 200)
        await client.call("source.step", 30)
        await client.call("source.finish", True)
        while (read := await client.call("reader.read"))["open"]:
            await asyncio.sleep(0.01)
        return read

    read = within(act)
    assert read["seen"] == {str(each): list(range(each * 1000, each * 1000 + 30)) for each in range(200)}
    assert read["ends"] == ["NoneType"] * 200


def test_a_stream_without_credit_holds_up_nobody_and_loses_nothing(within: Callable[[Act], Any]) -> None:
    async def act(client: slabwire.AsyncClient) -> Any:
        group = client.streams()
        streams = [group.begin("source.numbers", 0) for _ in range(10)]
        for number, each in enumerate(streams):
            each.tag = number
        streams[3].pause()
        await all_open(client, 10)
        reading = asyncio.create_task(collected(group, lambda seen: len(seen.get(0, ())) >= 201))
        for _ in range(20):
            got = await client.call("source.step", 10)
            await asyncio.sleep(0.01)
        assert got == 9
        streams[3].resume()
        for _ in range(14):
            await client.call("source.step", 10)
            await asyncio.sleep(0.01)
        await client.call("source.finish")
        seen = await reading
        rest = await collected(group, lambda rest: len(group) == 0)
        return {tag: [*seen.get(tag, []), *rest.get(tag, [])] for tag in range(10)}

    for tag, items in within(act).items():
        assert items.pop() == "end"
        assert items == list(range(len(items))), tag
        assert len(items) > (64 if tag == 3 else 200)


def test_a_reader_that_takes_nothing_fails_where_its_actor_does_not_heed_room(within: Callable[[Act], Any]) -> None:
    async def act(client: slabwire.AsyncClient) -> Any:
        group = begun(client, 2)
        deaf = group.begin("source.numbers", 0)
        deaf.tag = "deaf"
        deaf.pause()
        await all_open(client, 3)
        reading = asyncio.create_task(collected(group, lambda seen: seen.get(0, [0])[-1] == "end"))
        for _ in range(20):
            await client.call("source.step", 10, heed_room=False)
            await asyncio.sleep(0.01)
        assert (await client.call("source.counts"))[1] == 1
        await client.call("source.finish")
        seen = await reading
        rest = await collected(group, lambda rest: len(group) == 0)
        return {tag: [*seen.get(tag, []), *rest.get(tag, [])] for tag in (0, 1, "deaf")}

    seen = within(act)
    assert seen[0] == [*range(201), "end"]
    assert seen[1] == [*range(1000, 1201), "end"]
    assert isinstance(seen["deaf"][-1], slabwire.Overloaded)
    assert seen["deaf"][:-1] == list(range(len(seen["deaf"]) - 1))


def test_small_and_large_items_keep_their_order(within: Callable[[Act], Any]) -> None:
    async def act(client: slabwire.AsyncClient) -> Any:
        group = begun(client, 3)
        await all_open(client, 3)
        await client.call("source.large", 10)
        await client.call("source.finish")
        return await collected(group, lambda seen: len(group) == 0)

    for tag, items in within(act).items():
        assert [int(each.max()) if isinstance(each, np.ndarray) else each for each in items] == [
            *(k for k in range(10) for _ in range(2)),
            tag * 1000,
            "end",
        ]


def test_values_of_all_kinds_and_several_items_of_one_stream_travel_in_one_step(within: Callable[[Act], Any]) -> None:
    values = [None, True, 3, 2.5, "text", b"bytes", [1, [2]], {"a": {"b": 1}}, "long" * 3000]

    async def act(client: slabwire.AsyncClient) -> Any:
        group = begun(client, 4)
        await all_open(client, 4)
        await client.call("source.mixed", values)
        await client.call("source.finish")
        return await collected(group, lambda seen: len(group) == 0)

    assert within(act) == {each: [*values, each * 1000, "end"] for each in range(4)}


def test_an_item_that_no_message_carries_fails_its_own_stream_alone(within: Callable[[Act], Any]) -> None:
    async def act(client: slabwire.AsyncClient) -> Any:
        group = begun(client, 3)
        await all_open(client, 3)
        await client.call("source.unsendable")
        await client.call("source.finish")
        return await collected(group, lambda seen: len(group) == 0)

    seen = within(act)
    failed = [tag for tag, items in seen.items() if isinstance(items[-1], slabwire.MessageError)]
    assert len(failed) == 1
    assert "source.numbers cannot send this: message is a object" in str(seen[failed[0]][-1])
    assert sorted(items for tag, items in seen.items() if tag not in failed) == sorted(
        [7, tag * 1000, "end"] for tag in range(3) if tag not in failed
    )


def test_errors_name_the_actor_and_the_cause(within: Callable[[Act], Any]) -> None:
    async def act(client: slabwire.AsyncClient) -> None:
        group = begun(client, 2)
        await all_open(client, 2)
        await client.call("source.break_off")
        for items in (await collected(group, lambda seen: len(group) == 0)).values():
            assert isinstance(items[-1], slabwire.HandlerError)
            assert "source: ValueError: broke off" in str(items[-1])
        with pytest.raises(slabwire.HandlerError, match=r"source.forgets returned NoneType; .* self.reply_stream\(\)"):
            await anext(client.stream("source.forgets"))
        with pytest.raises(SlabwireError, match=r"self.reply_stream\(\) is for a handler that is annotated"):
            await client.call("source.misplaced")
        with pytest.raises(slabwire.MessageError, match="answers with a stream"):
            await client.call("source.numbers")

    within(act)


def test_cancelled_and_expired_streams_are_over_at_both_ends(within: Callable[[Act], Any]) -> None:
    async def act(client: slabwire.AsyncClient) -> None:
        group = client.streams()
        streams = [group.begin("source.numbers") for _ in range(50)]
        late = group.begin("source.numbers", timeout_s=0.3)
        late.tag = "late"
        await all_open(client, 51)
        for each in streams:
            each.cancel()
            assert each.is_over
            assert each.error is None
        (error,) = (await collected(group, lambda seen: len(group) == 0))["late"]
        assert isinstance(error, slabwire.DeadlineExceeded)
        while await client.call("source.counts") != [0, 51]:
            await asyncio.sleep(0.01)
        again = [group.begin("source.numbers") for _ in range(390)]  # their places are free
        await all_open(client, 390)
        group.close()
        assert all(each.is_over for each in again)
        with pytest.raises(SlabwireError, match="this group of streams is closed"):
            group.begin("source.numbers")
        with pytest.raises(StopAsyncIteration):
            await anext(group)
        while (await client.call("source.counts"))[0]:
            await asyncio.sleep(0.01)

    within(act)


def test_what_came_before_the_items_raised_is_sent(within: Callable[[Act], Any]) -> None:
    async def act(client: slabwire.AsyncClient) -> Any:
        group = begun(client, 3)
        await all_open(client, 3)
        with pytest.raises(slabwire.HandlerError, match="ValueError: no more"):
            await client.call("source.raises_amid")
        await client.call("source.step", 1)
        await client.call("source.finish")
        return await collected(group, lambda seen: len(group) == 0)

    seen = within(act)
    assert [items[0] for items in seen.values()].count("before") == 1
    assert [items[-1] for items in seen.values()] == ["end"] * 3


def test_a_late_reader_of_an_ended_stream_does_not_stop_the_next_one(within: Callable[[Act], Any]) -> None:
    """The second stream has the slot of the first, whose items are read one by one when it has ended."""

    async def act(client: slabwire.AsyncClient) -> None:
        ended = client.stream("source.at_once", 40)
        assert await anext(ended) == 0
        for _ in range(150):  # all of it has come, and of 500 slots the next streams take that of the first, too
            await client.call("source.counts")
        group = client.streams()
        streams = [group.begin("source.numbers", 0) for _ in range(398)]
        await all_open(client, 398)
        assert [item async for item in ended] == list(range(1, 40))
        reading = asyncio.create_task(collected(group, lambda seen: len(group) == 0))
        for _ in range(12):
            await client.call("source.step", 10)
            await asyncio.sleep(0.02)
        await client.call("source.finish")
        seen = await reading
        assert len(streams) == 398
        assert len(seen[None]) == 398 * (120 + 1 + 1)

    within(act)


def test_a_callback_that_raises_what_ends_tasks_stops_no_other_stream(within: Callable[[Act], Any]) -> None:
    async def act(client: slabwire.AsyncClient) -> None:
        seen: dict[Any, int] = {}

        def on_items(stream: IncomingStream, items: list[Any]) -> None:
            seen[stream.tag] = seen.get(stream.tag, 0) + len(items)
            if stream.tag == 1:
                raise asyncio.CancelledError

        raised: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: raised.append(context["exception"]))
        async with client.streams(on_items) as group:
            for each in range(5):
                group.begin("source.numbers", 0).tag = each
            await all_open(client, 5)
            for _ in range(3):
                await client.call("source.step", 1)
            while seen != dict.fromkeys(range(5), 3):
                await asyncio.sleep(0.01)
        assert len(group) == 0
        assert raised
        assert {type(each) for each in raised} == {asyncio.CancelledError}

    within(act)


def test_a_group_has_one_reader_and_the_deadline_of_the_request_that_it_serves(within: Callable[[Act], Any]) -> None:
    async def act(client: slabwire.AsyncClient) -> None:
        async with client.streams() as group:
            first = asyncio.ensure_future(anext(group))
            await asyncio.sleep(0)
            with pytest.raises(SlabwireError, match="another task iterates this group"):
                await anext(group)
            group.begin("source.at_once", 3)
            _, items = await first
            assert items == [0, 1, 2]
        with pytest.raises(slabwire.DeadlineExceeded):
            await client.call("reader.wait_for", 3, timeout_s=0.3)
        while (await client.call("source.counts"))[0]:
            await asyncio.sleep(0.01)
        assert await client.call("reader.begin_plainly") == 1  # outside of the loop

    within(act)


def test_an_end_that_has_come_is_not_late(within: Callable[[Act], Any]) -> None:
    async def act(client: slabwire.AsyncClient) -> None:
        async with client.streams() as group:
            stream = group.begin("source.at_once", 3, timeout_s=0.3)
            await asyncio.sleep(0.5)
            assert await anext(group) == (stream, [0, 1, 2])
            assert stream.is_over
            assert stream.error is None

    within(act)


def test_single_streams_read_them_as_any_other(within: Callable[[Act], Any]) -> None:
    async def act(client: slabwire.AsyncClient) -> Any:
        at_once = [item async for item in client.stream("source.at_once", 40)]
        stream = client.stream("source.numbers", 5)
        first = asyncio.ensure_future(anext(stream))
        await all_open(client, 1)
        await client.call("source.step", 3)
        await client.call("source.finish")
        return [*at_once, await first, *[item async for item in stream]]

    assert within(act) == [*range(40), 5, 6, 7, 8]


def test_more_streams_than_the_graph_allows_are_refused_at_once(within: Callable[[Act], Any]) -> None:
    async def act(client: slabwire.AsyncClient) -> None:
        group = begun(client, 400)
        with pytest.raises(slabwire.Overloaded, match="400 calls are in flight already"):
            group.begin("source.numbers")
        group.close()

    within(act)


def test_a_blocking_client_reads_a_reply_stream(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLABWIRE_RUN_DIR", str(tmp_path))
    with graph_of_streams().run() as running:
        assert list(running.client.stream("source.at_once", 100)) == list(range(100))
        leaving = running.client.stream("source.numbers")
        reading = iter(leaving)
        with slabwire.connect(running.name) as other:
            assert other.call("source.counts") == [0, 0]
        del reading, leaving
        assert wait_until(lambda: running.client.call("source.counts") == [0, 0])
