"""Whatever a handler raises, its caller gets an answer at once, and the worker lives on."""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import Iterator
from typing import Any

import pytest

import slabwire
from bad_errors import EVERY, OWN_RAISERS, PORTS, RAISERS, STREAMS, graph
from slabwire.runtime import error_text
from slabwire.runtime.errors import error_from_wire
from waiting import wait_until

EXPECTED = {
    **{name: (slabwire.HandlerError, text) for name, (_, text) in RAISERS.items()},
    **{name: (kind, text) for name, (_, kind, text) in OWN_RAISERS.items()},
}


def ask(client: Any, port: str, what: str) -> Any:
    if port in STREAMS:
        return list(client.stream(f"raises.{port}", what, timeout_s=30))
    return client.call(f"raises.{port}", what, timeout_s=30)


def check_all(client: Any, port: str) -> None:
    for what, (kind, text) in EXPECTED.items():
        with pytest.raises(kind) as caught:
            ask(client, port, what)
        said = str(caught.value)
        said.encode()
        assert len(said) < 2 * error_text.LONGEST_TEXT, what
        if what.startswith("stop"):
            text = f"RuntimeError|{text}"  # so Python has it where it means the end, PEP 479
        assert re.search(text, said, re.DOTALL), (what, said)


def in_flight(running: Any) -> int:
    return sum(actor["in_flight"] for each in running.status()["workers"] for actor in each["actors"])


def test_from_every_kind_of_handler() -> None:
    with graph("bad-errors").run() as running:
        before = running.client.call("raises.pid", timeout_s=30)
        for port in PORTS:
            check_all(running.client, port)
        assert running.client.call("raises.pid", timeout_s=30) == before
        wait_until(lambda: not in_flight(running))
        workers = running.status()["workers"]
        assert [each["restarts"] for each in workers] == [0, 0, 0, 0]
        assert workers[0]["actors"][0]["failed"] == len(PORTS) * len(EXPECTED)
        json.dumps(running.status()).encode()


def test_in_one_process() -> None:
    with graph("bad-errors-here").run(in_process=True) as running:
        for port in PORTS:
            check_all(running.client, port)
        wait_until(lambda: not in_flight(running))


def test_for_remote_clients_other_actors_and_along_edges() -> None:
    with graph("bad-errors-remote").run(listen="tcp://127.0.0.1:*") as running:
        with slabwire.connect(running.status()["gateway"]["listen"][0]) as remote:
            for what, (kind, text) in EXPECTED.items():
                for target in ("raises.plain", "forward.forward"):
                    with pytest.raises(slabwire.SlabwireError) as caught:
                        remote.call(target, what, timeout_s=30)
                    assert type(caught.value) is kind
                    assert re.search(text, str(caught.value), re.DOTALL), what
                assert re.search(text, running.client.call("asks.call_it", what, timeout_s=30), re.DOTALL), what
        assert [each["restarts"] for each in running.status()["workers"]] == [0, 0, 0, 0]


def test_a_class_that_wants_more_than_a_text_arrives_all_the_same() -> None:
    class Picky(slabwire.SlabwireError):
        code = "picky_for_test"

        def __init__(self, text: str, limit: int) -> None:
            super().__init__(f"{text} over {limit}")

    error = error_from_wire("picky_for_test", "12 over 5")
    assert type(error) is Picky
    assert str(error) == "12 over 5"


def test_a_traceback_that_cannot_be_formatted_still_has_its_frames() -> None:
    from bad_errors import Lies

    try:
        raise Lies("lied")
    except Lies as error:
        text = error_text.traceback_of(error)
    assert "test_error_answers.py" in text
    assert text.endswith("Lies: lied")


class Hooks(slabwire.Actor):
    """Raises in one of its hooks, or where a caller leaves it."""

    def __init__(self, where: str, what: str) -> None:
        self.where, self.what = where, what
        self._go("init")

    def _go(self, where: str) -> None:
        if where == self.where:
            EVERY[self.what]()

    def on_start(self) -> None:
        self._go("on_start")

    def on_drain(self) -> None:
        self._go("on_drain")

    def on_stop(self) -> None:
        self._go("on_stop")

    def items(self) -> Iterator[int]:
        try:
            yield from range(1000)
        finally:
            self._go("close")

    async def waits(self) -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            self._go("cancel")

    def pid(self) -> int:
        return os.getpid()


BAD = ("surrogate", "no text", "lies", "nameless", "abort")


@pytest.mark.parametrize("where", ["init", "on_start"])
def test_a_start_that_fails_says_why(where: str) -> None:
    for what in ("surrogate", "lies"):
        graph = slabwire.Graph("hooks")
        graph.expose(graph.add(Hooks, where=where, what=what).pid)
        with pytest.raises(slabwire.StartError) as caught:
            graph.run().__enter__()
        assert re.search(RAISERS[what][1], str(caught.value))
        str(caught.value).encode()


@pytest.mark.parametrize("here", [False, True])
def test_what_is_raised_where_nobody_listens_is_counted_and_ends_nothing(here: bool) -> None:
    graph = slabwire.Graph("hooks")
    actors = [
        graph.add(Hooks, name=f"{where}-{what.replace(' ', '-')}", where=where, what=what)
        for where in ("close", "cancel", "on_drain")
        for what in BAD
    ]
    graph.expose(*(port for each in actors for port in (each.items, each.waits, each.pid)))
    with graph.run(in_process=True) if here else graph.run() as running:
        for where in ("close", "cancel"):
            for what in BAD:
                name = f"{where}-{what.replace(' ', '-')}"
                pid = running.client.call(f"{name}.pid", timeout_s=30)
                if where == "close":
                    for _ in running.client.stream(f"{name}.items", timeout_s=30):
                        break
                else:
                    with pytest.raises(slabwire.DeadlineExceeded):
                        running.client.call(f"{name}.waits", timeout_s=0.05)
                assert running.client.call(f"{name}.pid", timeout_s=30) == pid
                wait_until(lambda: failed_of(running, name) == 1)  # noqa: B023
        assert not in_flight(running)


def failed_of(running: Any, name: str) -> int:
    actors = [actor for each in running.status()["workers"] for actor in each["actors"]]
    return next(int(each["failed"]) for each in actors if each["name"] == name)
