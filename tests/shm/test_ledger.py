"""Debug mode: who took what is out, who received it, and who writes to what was sent."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import memory_stage
import stage
from edge import Edge, lease_of_record, peek, send_block
from memory_stage import Hoards, Scribbles
from slabwire import Graph
from slabwire.runtime.clients.control import Control
from slabwire.runtime.control.verbs import Leases, Restart
from slabwire.runtime.errors import OutOfMemory
from slabwire.runtime.message.payload import Payload
from slabwire.runtime.supervision.lease_map import compose
from slabwire.shm.block import loaned_block
from slabwire.shm.ledger import Ledger, Origin
from slabwire.shm.pool import Pool
from stage import Loans
from waiting import wait_until


class Stage:
    """A pool with a ledger whose time stands still, and what it complains of."""

    def __init__(self) -> None:
        self.now_ns = 0
        self.complaints: list[str] = []
        self.origin = Origin("scale.image", 12)
        self.ledger = Ledger(lambda: self.origin, complain=self.complaints.append, clock=lambda: self.now_ns)
        self.edge = Edge()
        self.producer, self.consumer = self.edge.producer(), self.edge.consumer()
        self.pool: Pool = self.edge.pool(self.producer, ledger=self.ledger, limit_nbytes=1 << 20)

    def publish(self, value: object) -> None:
        """As sending does, without a lane."""
        Payload(value, self.pool).close()
        self.pool.collect()

    def close(self) -> None:
        self.pool.close()
        self.edge.close()
        vars(self).clear()


@pytest.fixture
def here() -> Iterator[Stage]:
    made = Stage()
    yield made
    made.close()


def line_of(text: str, module: Any = None) -> str:
    """`file:line` of the only line of a module that has `text`; without a module: of this one."""
    path = __file__ if module is None else str(module.__file__)
    (line,) = (number for number, each in enumerate(Path(path).read_text().splitlines(), 1) if each.endswith(text))
    return f"{path}:{line}"


def until_it_fails(call: Callable[[], object]) -> str:
    """Calls until there is no memory left; what is said then. The error itself would keep the caller's arrays."""
    while True:
        try:
            call()
        except OutOfMemory as error:
            return str(error)


def test_an_exhausted_pool_names_the_largest_that_are_out_and_their_lines(here: Stage) -> None:
    large = here.pool.loan((100_000,), np.uint8)  # the large one
    here.now_ns, here.origin = 3_000_000_000, Origin()
    small = [here.pool.loan((10,), np.uint8) for _ in range(4)]
    sent = send_block(here.producer, here.pool, 1, 50_000)
    here.now_ns = 5_000_000_000
    said = until_it_fails(lambda: here.pool.loan((1 << 20,), np.uint8)).partition("out are ")[2].split("; ")
    assert said[0] == (
        f"{loaned_block(large).slab.block_nbytes} bytes for 5.0 s by scale.image (request 12) "  # type: ignore[union-attr]
        f"at {line_of('# the large one')}, kept by itself"
    )
    assert re.match(r"\d+ bytes for 2\.0 s by its process at .*edge\.py:\d+, lent 1 time$", said[1])
    assert said[3] == "and 3 more"
    assert len(small) == 4
    assert sent.lends == 1


def test_without_debug_mode_the_error_says_how_to_find_out() -> None:
    edge = Edge(debug=False)
    pool = edge.pool(limit_nbytes=1 << 20)
    assert pool.ledger is None
    with pytest.raises(OutOfMemory, match=r"slabwire leases.*SLABWIRE_DEBUG_BLOCKS=1"):
        pool.loan((1 << 20,), np.uint8)
    pool.close()
    edge.close()


@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16, "M8[s]", "S3", "<U2", ">i4"], ids=str)
def test_a_view_from_before_that_writes_is_found_out(here: Stage, dtype: Any) -> None:
    loan = here.pool.loan((4, 50), dtype)
    loan.view(np.uint8)[:] = 0
    before = loan[2:3].view(np.uint8)
    here.publish({"x": loan})
    before[0, 5] = 1
    del loan, before
    here.pool.collect()
    (complaint,) = here.complaints
    assert "was written to after it had been sent" in complaint
    assert "taken by scale.image (request 12) at" in complaint
    assert complaint.endswith(line_of("loan = here.pool.loan((4, 50), dtype)"))


def test_only_what_was_sent_must_stay_as_it_was(here: Stage) -> None:
    loan = here.pool.loan((200,), np.int32)
    rest, holes = loan[100:], loan[1:100:2]
    here.publish(loan[:100:2])  # every other element of the first half
    rest[:] = 1
    holes[:] = 2
    here.publish([rest, loan[:0], loan[7:1:-2]])
    del loan, rest, holes
    here.pool.collect()
    assert here.complaints == []
    assert here.pool.blocks_out == 0


def test_what_was_received_is_listed_as_long_as_it_is_kept(here: Stage) -> None:
    send_block(here.producer, here.pool, 1)
    assert here.consumer.available()
    lease: Any = lease_of_record(here.consumer, peek(here.consumer), 0, here.edge.slab(1))
    here.ledger.received(lease, Origin("find.look", 3), "look.py:1")
    array = lease.array(0, (10,), np.dtype(np.uint8), None)
    ((found, entry),) = here.ledger.leases()
    assert (found, str(entry)) == (lease, "find.look (request 3) at look.py:1")
    del lease, found
    assert len(here.ledger.leases()) == 1
    del array
    assert here.ledger.leases() == []


def test_the_map_joins_what_owners_and_readers_say() -> None:
    block = {"slab": 4, "block": 2, "nbytes": 4096, "lent": [{"lane": 9, "waits": False}, {"lane": 8, "waits": True}]}
    own = {"debug": False, "pool": {"out": 1}, "blocks": [block], "received": [], "passed": []}
    passed = [{"slab": 4, "block": 2, "lane": 77, "waits": False}]
    other = {"debug": True, "pool": {}, "blocks": [], "passed": passed}
    kept = {"slab": 4, "block": 2, "lane": 9, "port": "b.on", "request": 5, "line": "b.py:3", "age_s": 1.5}
    answers = {"a": own, "b": {**other, "received": [kept]}, "c": None}
    lines: dict[int, Any] = {9: Stand("b"), 8: Stand("client-1")}
    found = compose(answers, lines, {})
    assert (found["debug"], found["silent"]) == (True, ["c"])
    assert found["blocks"][0]["owner"] == "a"
    assert found["blocks"][0]["held_by"] == [
        {"holder": "b", "unread": False, "port": "b.on", "request": 5, "line": "b.py:3", "age_s": 1.5},
        {"holder": "client-1", "unread": True},
        {"holder": "somebody who is gone", "unread": False},
    ]


class Stand:
    def __init__(self, target: str) -> None:
        self.target = target


# -- graphs ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SLABWIRE_RUN_DIR", str(tmp_path / "run"))
    monkeypatch.setenv("SLABWIRE_DEBUG_BLOCKS", "1")
    return tmp_path / "run" / "memory" / "logs"


def leases() -> dict[str, Any]:
    with Control("memory") as control:
        return control.request(Leases())


def test_who_keeps_whose_memory(logs: Path) -> None:
    graph = Graph("memory")
    loans, hoards = graph.add(Loans, memory_bytes=3 << 20), graph.add(Hoards)
    graph.connect(loans.filled, hoards.hoard)
    graph.expose(loans.filled, hoards.hoard)
    filled = line_of("array = self.loan(nbytes // 4, np.float32)", stage)
    keep = line_of("def hoard(self, x: np.ndarray) -> int:", memory_stage)
    scratch = line_of("self.scratch = self.loan((100, 100), np.float64)", memory_stage)
    with graph.run() as running:
        client = running.client
        assert [client.call("loans.filled", float(n)) for n in range(3)] == [1, 2, 3]
        found = leases()
        assert found["debug"]
        own = [each for each in found["blocks"] if each["owner"] == "loans"]
        assert len(own) == found["pools"]["loans"]["out"] == 3
        for each in own:
            assert (each["port"], each["line"]) == ("loans.filled", filled)
            (holder,) = each["held_by"]
            assert (holder["holder"], holder["port"], holder["line"]) == ("hoards", "hoards.hoard", keep)
            assert holder["request"] == each["request"] > 0
            assert min(each["age_s"], holder["age_s"]) >= 0
        (other,) = (each for each in found["blocks"] if each["owner"] == "hoards")
        assert (other["port"], other["line"], other["held_by"]) == ("hoards", scratch, [])
        client.call("hoards.hoard", np.zeros(20_000))
        (other,) = (each for each in leases()["blocks"] if each["owner"] == "client-1")
        assert other["nbytes"] >= 160_000
        assert [each["holder"] for each in other["held_by"]] == ["hoards"]
        text = until_it_fails(lambda: client.call("loans.filled", 0.0))
        assert re.search(rf"by loans\.filled \(request \d+\) at {re.escape(filled)}, lent 1 time", text)

        with Control("memory") as control:
            control.request(Restart(actor="hoards"))
        log = logs / "hoards.log"
        wait_until(lambda: "still kept at the stop" in log.read_text())
        text = log.read_text()
        assert re.search(
            rf"still out at the stop: \d+ bytes, lent 0 times, taken by hoards at {re.escape(scratch)}", text
        )
        assert re.search(rf"received by hoards\.hoard \(request \d+\) at {re.escape(keep)}", text)


def test_an_actor_that_writes_to_what_it_has_sent_is_named(logs: Path) -> None:
    graph = Graph("memory")
    scribbles = graph.add(Scribbles)
    graph.expose(scribbles.sends, scribbles.scribble, scribbles.behave, scribbles.out)
    with graph.run() as running:
        client, log = running.client, logs / "scribbles.log"
        assert set(client.call("scribbles.sends", 5000).tolist()) == {7}
        client.call("scribbles.behave")
        wait_until(lambda: client.call("scribbles.out") == 0)
        assert "written to" not in log.read_text()
        array = client.call("scribbles.sends", 5000)
        client.call("scribbles.scribble")
        assert array[3] == 8, "the reader sees it, for it is the same memory"
        del array
        wait_until(lambda: client.call("scribbles.out") == 0)
        line = line_of("loan = self.loan(n, np.int32)", memory_stage)
        assert re.search(rf"taken by scribbles\.sends \(request \d+\) at {re.escape(line)}\n", log.read_text())
