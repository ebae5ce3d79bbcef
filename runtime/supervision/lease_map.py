"""Who keeps whose memory in a running graph: what all workers answer when they are asked for their blocks."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any

from ...shm.layout import LINE_NBYTES
from ..control.worker_line import Holdings, TellHoldings
from ..dataplane.peers import LaneRecord, SlabRecord
from ..dataplane.switchboard import Switchboard
from .running_graph import RunningGraph

Answers = dict[str, dict[str, Any] | None]


# A worker answers between two handlers. One that is deep in a handler is not waited for longer than this.
ANSWER_WITHIN_S = 1.5


class LeaseMap:
    """The supervisor's, on its loop."""

    def __init__(self, graph: RunningGraph) -> None:
        self._graph = graph
        self._last_token = 0
        self._awaited: dict[tuple[int, str], asyncio.Future[dict[str, Any]]] = {}

    async def read(self) -> dict[str, Any]:
        """Blocks that are out, the largest and oldest first, each with its owner and with who has it."""
        alive = [worker.name for worker in self._graph.workers.values() if worker.is_ready and worker.is_alive]
        answers = await self._answers(alive)
        board = self._graph.switchboard
        return {**compose(answers, board.lanes, board.slabs), **held_of(board)}

    async def _answers(self, workers: Iterable[str]) -> Answers:
        """What each worker says of its blocks; None for one that did not answer in time."""
        self._last_token += 1
        token, loop = self._last_token, asyncio.get_running_loop()
        awaited = {name: loop.create_future() for name in workers}
        self._awaited.update({(token, name): future for name, future in awaited.items()})
        try:
            for name in awaited:
                self._graph.tell(name, TellHoldings(token))
            if awaited:
                await asyncio.wait(awaited.values(), timeout=ANSWER_WITHIN_S)
            return {name: future.result() if future.done() else None for name, future in awaited.items()}
        finally:
            for name in awaited:
                del self._awaited[token, name]

    def heard(self, worker: str, answer: Holdings) -> None:
        """A worker's answer; late ones are dropped."""
        future = self._awaited.get((answer.token, worker))
        if future is not None and not future.done():
            future.set_result(answer.holdings)


def held_of(board: Switchboard) -> dict[str, list[dict[str, Any]]]:
    """What the supervisor holds for actors: kept memory, and listening sockets with the instances that have them."""
    kept = [{"actor": each.actor, "name": each.name, "nbytes": each.segment.nbytes} for each in board.kept]
    sockets = [{"address": str(each.address), "held_for": sorted(each.users)} for each in board.listeners]
    return {"kept": kept, "sockets": sockets}


def compose(answers: Answers, lanes: Mapping[int, LaneRecord], slabs: Mapping[int, SlabRecord]) -> dict[str, Any]:
    """The document, from each worker's answer; `lanes` says where a lane leads, `slabs` whose a slab is."""
    heard = {name: answer for name, answer in answers.items() if answer is not None}
    received = _received(heard)
    passed = [(name, each) for name, answer in heard.items() for each in answer["passed"]]
    blocks = []
    for owner, answer in heard.items():
        for block in answer["blocks"]:
            place = block["slab"], block["block"]
            ways = block.pop("lent") + [each for _, each in passed if (each["slab"], each["block"]) == place]
            blocks.append({"owner": owner, **block, "held_by": [_holder(way, place, lanes, received) for way in ways]})
    blocks += _of_others(received, lanes, slabs)
    return {
        "debug": any(answer["debug"] for answer in heard.values()),
        "silent": [name for name, answer in answers.items() if answer is None],
        "pools": {name: answer["pool"] for name, answer in heard.items()},
        "blocks": sorted(blocks, key=lambda each: (-each["nbytes"], -each.get("age_s", 0.0))),
    }


def _received(answers: dict[str, dict[str, Any]]) -> dict[tuple[int, int, int], dict[str, Any]]:
    """What the workers have received, by lane and block."""
    return {
        (each.pop("lane"), each.pop("slab"), each.pop("block")): each
        for answer in answers.values()
        for each in answer["received"]
    }


def _holder(
    way: dict[str, Any],
    place: tuple[int, int],
    lanes: Mapping[int, LaneRecord],
    received: dict[tuple[int, int, int], dict[str, Any]],
) -> dict[str, Any]:
    """Who is at the end of a lane, and, in debug mode, for which message it has kept the block."""
    lane = lanes.get(way["lane"])
    name = "somebody who is gone" if lane is None else lane.target
    return {"holder": name, "unread": way["waits"], **received.pop((way["lane"], *place), {})}


def _of_others(
    received: dict[tuple[int, int, int], dict[str, Any]],
    lanes: Mapping[int, LaneRecord],
    slabs: Mapping[int, SlabRecord],
) -> list[dict[str, Any]]:
    """Blocks of clients, who are not asked: what workers have received and no worker owns. Known in debug mode."""
    blocks: dict[tuple[int, int], dict[str, Any]] = {}
    for lane, slab, index in list(received):
        if slab not in slabs:
            continue
        placed = slabs[slab].segment.placed
        block: dict[str, Any] = {
            "owner": slabs[slab].owner.name,
            "slab": slab,
            "block": index,
            "nbytes": placed.rows("payload") * LINE_NBYTES // placed.rows("generation"),
            "held_by": [],
        }
        blocks.setdefault((slab, index), block)["held_by"].append(
            _holder({"lane": lane, "waits": False}, (slab, index), lanes, received)
        )
    return list(blocks.values())
