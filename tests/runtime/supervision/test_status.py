"""What the status of a graph is made of, without a graph."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from slabwire.runtime.dataplane.descriptor_channel import Channel
from slabwire.runtime.dataplane.switchboard import Switchboard
from slabwire.runtime.graph.compiled import Routing
from slabwire.runtime.host.topology import Topology
from slabwire.runtime.placement.plan import plan
from slabwire.runtime.spec import ActorSpec, CodeSpec, GraphSpec
from slabwire.runtime.supervision import status


def test_memory_is_counted_beside_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    is_counting, may_end = threading.Event(), threading.Event()

    def slow(pids: list[int]) -> dict[int, int]:
        is_counting.set()
        may_end.wait()
        return dict.fromkeys(pids, 7)

    monkeypatch.setattr(status, "pss_of", slow)
    monkeypatch.setattr(status, "_document", lambda _graph, _mover, _balancer, memory: memory)
    workers = {"one": SimpleNamespace(pid=11, is_alive=True), "gone": SimpleNamespace(pid=12, is_alive=False)}
    graph: Any = SimpleNamespace(workers=workers, spawner=SimpleNamespace(fork_server_pid=10))

    async def ask() -> Any:
        asking = asyncio.create_task(status.status_of(graph, graph, None))
        while not is_counting.is_set():
            await asyncio.sleep(0)
        may_end.set()  # which the loop would not come to while it counted itself
        return await asking

    assert asyncio.run(ask()) == {os.getpid(): 7, 10: 7, 11: 7}


def test_what_was_refused_stays_counted_when_its_sender_has_gone() -> None:
    spec = GraphSpec("graph", (ActorSpec("one", CodeSpec("file", "/x.py", "X"), ()),))
    board = Switchboard(Routing(spec), plan(spec, Topology.read()))
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    client, worker = board.add_client(Channel(near)), board.home_of("one")
    lane = board.connect(client, worker, "call", client.name, "one", 4)
    os.pwrite(lane.returns.fd, (3).to_bytes(8, "little"), lane.returns.placed["refused"])
    assert status._actor(board, worker, "one")["refused"] == 3
    board.departures.client_left(client)
    assert status._actor(board, worker, "one")["refused"] == 3
    far.close()
    board.close()
