"""Memory that the supervisor keeps for an actor: shared by its replicas, found again by successors, bounded, shown."""

from __future__ import annotations

import json
import os
import signal
from typing import Any

import pytest

import slabwire
from fake_graphs import invoke
from kept_stage import OTHER, TALLY, Looks, Tally
from slabwire import Graph, GraphError, OutOfMemory, SlabwireError
from slabwire.runtime.control.channel import Keep, Listen
from slabwire.runtime.dataplane.descriptor_channel import Unheard
from slabwire.runtime.dataplane.kept import KEPT, MOST_KEPT, KeptMemories
from slabwire.runtime.errors import LayoutError, ProtocolError
from slabwire.shm.layout import prove
from slabwire.shm.segment import Segment, Stamp
from waiting import wait_until, worker_of


def graph_with(**options: Any) -> Graph:
    graph = Graph("kept")
    tally = graph.add(Tally, **options)
    graph.expose(*(getattr(tally, each) for each in ("add", "note", "noted", "who", "again")))
    graph.expose(tally.keep_other, tally.keep_big, tally.keep_nothing, tally.loan_bytes)
    return graph


def killed(running: Any, worker: str) -> int:
    """The pid of the successor of a worker that is killed here."""
    pid = worker_of(running, worker)["pid"]
    os.kill(pid, signal.SIGKILL)

    def successor() -> int:
        line = worker_of(running, worker)
        return int(line["pid"]) if line["state"] == "ready" and line["pid"] != pid else 0

    return int(wait_until(successor))


def test_a_successor_finds_what_was_written() -> None:
    with graph_with().run() as running:
        client = running.client
        client.call("tally.note", "before the end")
        assert client.call("tally.add", 2) == [2, 0]
        assert killed(running, "tally") == client.call("tally.who")[1]
        assert client.call("tally.add", 3) == [5, 0]
        assert client.call("tally.noted") == "before the end"


def test_replicas_have_rows_of_their_own_in_one_memory() -> None:
    with graph_with(replicas=2, routing="round_robin").run() as running:
        client = running.client
        assert sorted(client.call("tally.who")[0] for _ in range(2)) == [0, 1]
        assert [client.call("tally.add", 1) for _ in range(4)][-1] == [2, 2]
        killed(running, "tally[1]")
        assert sum(client.call("tally.add", 1)) == 5


def test_a_graph_in_this_process_keeps_memory_too() -> None:
    with graph_with(replicas=2, routing="round_robin").run(in_process=True) as running:
        assert running.client.call("tally.again")
        assert [running.client.call("tally.add", 1) for _ in range(4)][-1] == [2, 2]


@pytest.mark.parametrize("in_process", [False, True])
def test_another_actor_reads_it_whoever_came_first_and_cannot_write(in_process: bool) -> None:
    graph = graph_with(replicas=2, routing="round_robin")
    looks = graph.add(Looks)
    graph.expose(looks.counts, looks.write)
    with graph.run(in_process=in_process) as running:
        call = running.client.call
        assert call("looks.counts", "tally") == [0, 0]
        assert [call("tally.add", 1) for _ in range(3)][-1] == call("looks.counts", "tally") == [2, 1]
        with pytest.raises(SlabwireError, match="cannot modify read-only memory"):
            call("looks.write")
        with pytest.raises(SlabwireError, match=r"looks reads what 'taly' keeps as 'tally', .*did you mean 'tally'"):
            call("looks.counts", "taly")
        with pytest.raises(SlabwireError, match=r"keeps memory under the name 'a b\.tally'"):
            call("looks.counts", "a b")


def test_what_is_asked_for_with_another_layout_is_refused_by_name() -> None:
    with graph_with().run() as running:
        assert running.client.call("tally.again")
        with pytest.raises(SlabwireError, match=r"tally keeps 'tally' with another layout, .* now \(256 bytes"):
            running.client.call("tally.keep_other", "tally")
        assert running.client.call("tally.keep_big", "big", 2) == 8320
        with pytest.raises(SlabwireError, match=r"tally keeps 'big' .* another name, or start the graph anew"):
            running.client.call("tally.keep_big", "big", 3)


def test_memory_is_bounded_and_the_errors_say_by_what() -> None:
    with graph_with(memory_bytes=1 << 20).run() as running:
        call = running.client.call
        with pytest.raises(OutOfMemory, match=r"tally cannot keep 'big' of 4096128 bytes: .* memory_bytes= of graph"):
            call("tally.keep_big", "big", 1000)
        for n in range(1, MOST_KEPT):
            assert call("tally.keep_other", f"other-{n}") == 256
        with pytest.raises(SlabwireError, match=r"keeps 16 memories already, which is the most \(tally, .*'x'"):
            call("tally.keep_other", "x")
        assert call("tally.keep_other", "other-1") == 256
        with pytest.raises(SlabwireError, match=r"tally keeps memory under the name 'a b'; it must consist of letters"):
            call("tally.keep_other", "a b")
        with pytest.raises(SlabwireError, match=r"layout 'nothing', which tally keeps as 'nothing', has no words"):
            call("tally.keep_nothing")


def test_slabs_and_kept_memory_share_one_limit() -> None:
    with graph_with(memory_bytes=1 << 20).run() as running:
        assert running.client.call("tally.keep_big", "big", 240) == 983_168
        with pytest.raises(OutOfMemory, match="bytes are left"):
            running.client.call("tally.keep_big", "more", 240)
        with pytest.raises(OutOfMemory, match="tally holds 983680 bytes of slabs and kept memory"):
            running.client.call("tally.loan_bytes", 200_000)


def test_commands_show_it() -> None:
    with graph_with().run() as running:
        assert "tally keeps 'tally': 512 B\n" in invoke("leases", running.name).stdout
        listed = json.loads(invoke("leases", running.name, "--format", "json").stdout)
        assert listed["kept"] == [{"actor": "tally", "name": "tally", "nbytes": 512}]
        shown = invoke("layout", running.name).stdout
        assert "memory 'tally' kept by tally\nkept: 512 bytes" in shown
        assert "shown with lines=3" in shown


# -- the book --------------------------------------------------------------------------------------------------------


def ask(**changes: Any) -> Keep:
    placed, stamp = TALLY.place(replicas=2), Stamp.of(TALLY, {"replicas": 2})
    return Keep("tally", "tally", stamp.magic, placed.nbytes, list(stamp.parameters))._replace(**changes)


def test_the_memory_bears_the_layout_of_its_actor() -> None:
    book = KeptMemories()
    made = book.make("tally", ask(), 1 << 20)
    prove(made.segment.placed)
    opened = Segment.open(os.dup(made.segment.fd), TALLY, writable=True)
    assert (opened.nbytes, opened.placed.rows("count"), not any(opened.words[16:])) == (512, 2, True)
    with pytest.raises(LayoutError):
        Segment.open(os.dup(made.segment.fd), OTHER, writable=True)
    with pytest.raises(LayoutError):
        Segment.open(os.dup(made.segment.fd), KEPT, writable=True)
    assert book.find("tally", ask()) is made
    assert book.find("other", ask()) is None
    opened.close()
    made.segment.close()
    del opened, made, book


@pytest.mark.parametrize(
    "changes",
    [
        {"nbytes": 0},
        {"nbytes": 128},
        {"nbytes": 129},
        {"nbytes": -(1 << 40)},
        {"magic": -1},
        {"magic": 1 << 64},
        {"name": ""},
        {"name": "a\0b"},
        {"name": "x" * 41},
        {"parameters": [1] * 5},
        {"parameters": ["a"]},
        {"parameters": [0]},
        {"parameters": [1 << 64]},
    ],
)
def test_what_no_actor_asks_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ProtocolError):
        KeptMemories().make("tally", ask(**changes), 1 << 50)


def test_a_client_is_refused() -> None:
    with graph_with().run(in_process=True) as running:
        link = running._engine.link(Unheard())
        for question in (ask(), Listen("tally", "tcp://127.0.0.1:0"), ask(instance="nobody")):
            with pytest.raises(ProtocolError, match=r"client-1 cannot ask (Keep|Listen), or not of that actor"):
                link.ask(question)
        link.close()


def test_a_verb_outside_of_a_graph_says_so() -> None:
    for verb in (lambda: Tally().keep("x", OTHER), lambda: Tally().listen("tcp://127.0.0.1:0")):
        with pytest.raises(SlabwireError, match="may only be used inside a running graph"):
            verb()
    assert issubclass(GraphError, SlabwireError)
    assert slabwire.Layout is type(TALLY)
