"""Which replica a message goes to: the pure choice, what may be asked for, and graphs that run."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import slabwire
from slabwire import Actor, Graph, GraphError, MessageError, Output
from slabwire.runtime.graph.replicas import Choice, key_of, policy_of, replica_of
from waiting import wait_until

KEYS = [f"user-{n}".encode() for n in range(2000)]


# -- the hash --------------------------------------------------------------------------------------------------------


def test_a_hash_says_the_same_in_every_process() -> None:
    code = "from slabwire.runtime.graph.replicas import *\n"
    code += "print([replica_of(key_of(v, ''), 7) for v in ['é', 5, b'x', None, 0.5]])"
    answers = {
        subprocess.check_output([sys.executable, "-c", code], env={**os.environ, "PYTHONHASHSEED": seed}, text=True)
        for seed in ("1", "2")
    }
    assert answers == {str([replica_of(key_of(v, ""), 7) for v in ["é", 5, b"x", None, 0.5]]) + "\n"}
    assert [replica_of(key, 5) for key in KEYS[:12]] == [4, 1, 0, 4, 0, 4, 3, 4, 2, 3, 0, 2], (
        "for good: nothing may move"
    )


def test_keys_spread_evenly_and_few_move_when_a_replica_is_added() -> None:
    for replicas in range(1, 9):
        counts = Counter(replica_of(key, replicas) for key in KEYS)
        assert set(counts) == set(range(replicas))
        assert max(counts.values()) < 1.4 * len(KEYS) / replicas
        moved = [
            replica_of(key, replicas + 1) for key in KEYS if replica_of(key, replicas) != replica_of(key, replicas + 1)
        ]
        assert set(moved) <= {replicas}, "only the new one gets keys of others"
        assert len(moved) < 1.4 * len(KEYS) / (replicas + 1)


@given(
    st.one_of(st.integers(-(1 << 63), (1 << 64) - 1), st.booleans(), st.floats(allow_nan=False, allow_infinity=False))
)
def test_numbers_that_are_equal_have_one_key(number: float) -> None:
    equals = [each for each in (int(number), float(int(number)), number) if each == number]
    assert len({key_of(each, "") for each in equals}) == 1
    assert key_of(np.float64(number), "") == key_of(float(number), "")


def test_values_of_different_kinds_have_different_keys() -> None:
    values: list[Any] = ["1", b"1", 1, 1.5, None, "", b"", "None"]
    assert len({key_of(each, "") for each in values}) == len(values)
    assert key_of(bytearray(b"x"), "") == key_of(b"x", "")
    with pytest.raises(MessageError, match=r"the field chooses the replica, so it must be a str, .*, not list"):
        key_of([1], "the field")


# -- turns and loads -------------------------------------------------------------------------------------------------


@dataclass(eq=False)
class FakeLane:
    waiting: int = 0
    capacity: int = 2


def has_room(lane: FakeLane) -> bool:
    return lane.waiting < lane.capacity


def send(choice: Choice, lanes: list[FakeLane]) -> int:
    lane = choice.pick(lanes, has_room)
    if has_room(lane):
        lane.waiting += 1
        choice.went(lanes, lane)
    return lanes.index(lane)


def test_round_robin_passes_over_who_is_full() -> None:
    lanes, choice = [FakeLane(), FakeLane(), FakeLane()], Choice(policy_of("round_robin"))
    assert [send(choice, lanes) for _ in range(4)] == [0, 1, 2, 0]
    lanes[1].waiting, lanes[2].waiting = 2, 0
    assert send(choice, lanes) == 2
    lanes[0].waiting = lanes[2].waiting = 2
    assert [send(choice, lanes) for _ in range(2)] == [0, 0], "all are full: the turn waits where it is"
    lanes[1].waiting = 0
    assert send(choice, lanes) == 1


def test_the_least_loaded_gets_the_next_and_equals_take_turns() -> None:
    lanes, choice = [FakeLane(), FakeLane(), FakeLane()], Choice(policy_of("least_loaded"))
    assert [send(choice, lanes) for _ in range(3)] == [0, 1, 2]
    lanes[1].waiting = 0
    assert send(choice, lanes) == 1
    lanes[0].waiting = 0
    lanes[0].capacity = 0  # as where it has nothing left to lend
    assert send(choice, lanes) == 2


# -- what may be asked for -------------------------------------------------------------------------------------------


class Store(Actor):
    """Keeps what it gets by user, and knows its own name."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def put(self, user: Any, n: int = 0) -> tuple[str, int]:
        self.seen.append(user)
        return self.context.actor, n

    def knows(self, user: str | None = None) -> bool:
        return user in self.seen


def keyed(user: str) -> str:
    return user


class Bare(Actor):
    def look(self) -> None: ...

    def of(self, user: list[int], limit: int = 5) -> None: ...


REFUSED: dict[str, tuple[Any, Any, str]] = {
    "typo": (keyed, "round-robin", "routing='round-robin' must be one of .*did you mean 'round_robin'"),
    "no field": (keyed, "hash:", 'name the field, as in routing="hash:user"'),
    "no text": (keyed, 5, "routing='5' must be one of least_loaded, round_robin, hash:field"),
    "field with a typo": (keyed, "hash:usr", "keyed.keyed takes no field 'usr'; did you mean 'user'"),
    "not of every handler": (Bare, "hash:user", "bare.look takes no field 'user'; its fields are none"),
    "no key": (Bare, "hash:user", r"bare.of takes user: list\[int\]; a key is a str"),
    "a default": (Bare, "hash:limit", "bare.of has the default limit=5, which senders do not know"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_meant_is_refused(name: str) -> None:
    code, routing, text = REFUSED[name]
    graph = Graph("g")
    graph.add(code, replicas=2, routing=routing)
    with pytest.raises(GraphError, match=text):
        graph.validate()


# -- graphs that run -------------------------------------------------------------------------------------------------


class Source(Actor):
    def one(self, user: Any, n: int) -> dict[str, Any]:
        return {"user": user, "n": n}

    def each(self, user: Any, n: int, last: Any = None) -> Iterator[dict[str, Any]]:
        for i in range(n):
            yield {"user": user, "n": i}
        if last is not None:
            yield {"user": last, "n": n}

    async def ask(self, user: Any) -> Any:
        return await self.call("store.put", user)


class Scatter(Actor):
    out = Output(dict)

    def scatter(self, n: int) -> int:
        for i in range(n):
            self.emit("out", {"user": f"user-{i}", "n": i})
        return n


def graph_of(routing: str) -> Graph:
    graph = Graph("spread")
    source, scatter, store = graph.add(Source), graph.add(Scatter), graph.add(Store, replicas=3, routing=routing)
    behind = graph.add(Store, name="behind", replicas=3, routing=routing, worker="w")
    for output in (source.one, source.each):
        graph.connect(output, store.put)
    graph.connect(scatter.out, behind.put)
    graph.expose(source.one, source.each, source.ask, store.put, store.knows, behind.knows)
    graph.expose(scatter.scatter, reply=scatter.scatter)
    return graph


@pytest.fixture(scope="module")
def run_directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLABWIRE_RUN_DIR", str(tmp_path_factory.mktemp("run")))
        yield


@pytest.fixture(scope="module")
def hashing(run_directory: None) -> Iterator[Any]:
    with graph_of("hash:user").run() as running:
        client = running.client
        client.call("scatter.scatter", 0)
        client.call("source.one", "ann", 0)
        for users in (["ann"], USERS[:3]):
            with contextlib.suppress(MessageError):
                for user in users:
                    list(client.stream("source.each", "ann", 1, user))
        for port in ("source.ask", "store.put", "store.knows", "behind.knows"):
            client.call(port, "ann")
        yield running  # with all its client's lanes open, and room for long errors


@pytest.fixture
def by_hash(hashing: Any) -> Any:
    return hashing.client


USERS: list[Any] = ["ann", "bob", "cy", 7, b"raw", None, 0.25, True]


def home(name: str, user: Any) -> str:
    return f"{name}[{replica_of(key_of(user, ''), 3)}]"


@pytest.mark.parametrize("user", USERS, ids=str)
def test_equal_fields_meet_the_same_replica_by_every_way(by_hash: Any, user: Any) -> None:
    expected = home("store", user)
    ways: list[Callable[[], Any]] = [
        lambda: by_hash.call("store.put", user)[0],
        lambda: by_hash.call("store.put", n=4, user=user)[0],
        lambda: by_hash.call("source.one", user, 1)[0],
        lambda: by_hash.call("source.ask", user)[0],
        lambda: next(iter(by_hash.stream("source.each", user, 3)))[0],
    ]
    assert [way() for way in ways] == [expected] * len(ways)


def test_a_second_client_agrees(by_hash: Any) -> None:
    with slabwire.connect("spread") as other:
        assert [other.call("store.put", user)[0] for user in USERS] == [home("store", user) for user in USERS]


def test_a_field_that_is_left_out_is_none(by_hash: Any) -> None:
    by_hash.call("store.put", None)
    assert [by_hash.call("store.knows"), by_hash.call("store.knows", None)] == [True, True]


def test_a_stream_keeps_its_order_and_its_end(by_hash: Any) -> None:
    for user in USERS[:3]:
        assert list(by_hash.stream("source.each", user, 200)) == [[home("store", user), n] for n in range(200)]
    assert list(by_hash.stream("source.each", "ann", 0)) == []


def test_a_stream_to_a_caller_cannot_be_torn_apart(by_hash: Any) -> None:
    other = next(user for user in USERS if home("store", user) != home("store", "ann"))
    with pytest.raises(MessageError, match="'user' of an item belongs to another replica than that of the first"):
        list(by_hash.stream("source.each", "ann", 10, other))


def test_what_leads_to_no_answer_goes_where_its_key_says(by_hash: Any) -> None:
    assert by_hash.call("scatter.scatter", 100) == 100
    for n in range(100):
        wait_until(lambda user=f"user-{n}": by_hash.call("behind.knows", user))  # type: ignore[misc]


def test_what_is_no_key_is_refused_at_the_sender(by_hash: Any) -> None:
    with pytest.raises(MessageError, match=r"store.put: field 'user' chooses the replica, so it must be .* not list"):
        by_hash.call("store.put", [1])
    with pytest.raises(MessageError, match="not dict"):
        by_hash.call("source.one", {}, 1)


def test_messages_go_round(run_directory: None) -> None:
    with graph_of("round_robin").run(name="turns") as running:
        client = running.client
        expected = [f"store[{n % 3}]" for n in range(30)]
        assert [client.call("store.put", n)[0] for n in range(30)] == expected
        assert [client.call("source.one", n, n)[0] for n in range(30)] == expected
        assert [client.call("source.ask", n)[0] for n in range(30)] == expected
        for _ in range(3):
            assert len({item[0] for item in client.stream("source.each", 1, 50)}) == 1


def test_messages_wait_for_a_dead_replica(hashing: Any, by_hash: Any) -> None:
    (worker,) = (each for each in hashing.status()["workers"] if each["name"] == home("store", "ann"))
    os.kill(worker["pid"], signal.SIGKILL)
    assert [by_hash.call("store.put", "ann", n) for n in range(5)] == [[home("store", "ann"), n] for n in range(5)]
    assert by_hash.call("source.one", "ann", 5) == [home("store", "ann"), 5]
