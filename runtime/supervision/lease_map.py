"""Who keeps whose memory in a running graph: what all workers say of their blocks, put together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...shm.layout import LINE_NBYTES
from ..dataplane.peers import LaneRecord, SlabRecord
from .running_graph import RunningGraph

Answers = dict[str, dict[str, Any] | None]


async def lease_map(graph: RunningGraph) -> dict[str, Any]:
    """Blocks that are out, the largest and oldest first, each with its owner and with who has it."""
    alive = [worker.name for worker in graph.workers.values() if worker.is_ready and worker.is_alive]
    answers = await graph.queries.holdings(alive)
    return compose(answers, graph.switchboard.lines, graph.switchboard.slabs)


def compose(answers: Answers, lines: Mapping[int, LaneRecord], slabs: Mapping[int, SlabRecord]) -> dict[str, Any]:
    """The document, from each worker's answer; `lines` says where a lane leads, `slabs` whose a slab is."""
    heard = {name: answer for name, answer in answers.items() if answer is not None}
    received = _received(heard)
    passed = [(name, each) for name, answer in heard.items() for each in answer["passed"]]
    blocks = []
    for owner, answer in heard.items():
        for block in answer["blocks"]:
            place = block["slab"], block["block"]
            ways = block.pop("lent") + [each for _, each in passed if (each["slab"], each["block"]) == place]
            blocks.append({"owner": owner, **block, "held_by": [_holder(way, place, lines, received) for way in ways]})
    blocks += _of_others(received, lines, slabs)
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
    lines: Mapping[int, LaneRecord],
    received: dict[tuple[int, int, int], dict[str, Any]],
) -> dict[str, Any]:
    """Who is at the end of a lane, and, in debug mode, for which message it has kept the block."""
    line = lines.get(way["lane"])
    name = "somebody who is gone" if line is None else line.target
    return {"holder": name, "unread": way["waits"], **received.pop((way["lane"], *place), {})}


def _of_others(
    received: dict[tuple[int, int, int], dict[str, Any]],
    lines: Mapping[int, LaneRecord],
    slabs: Mapping[int, SlabRecord],
) -> list[dict[str, Any]]:
    """Blocks of clients, who are not asked: what workers have received and no worker owns. Known in debug mode."""
    blocks: dict[tuple[int, int], dict[str, Any]] = {}
    for lane, slab, index in list(received):
        if slab not in slabs:
            continue
        rows = {each.word.name: each.rows for each in slabs[slab].segment.placed.places}
        nbytes = rows["payload"] * LINE_NBYTES // rows["generation"]
        block: dict[str, Any] = {
            "owner": slabs[slab].owner.name,
            "slab": slab,
            "block": index,
            "nbytes": nbytes,
            "held_by": [],
        }
        blocks.setdefault((slab, index), block)["held_by"].append(
            _holder({"lane": lane, "waits": False}, (slab, index), lines, received)
        )
    return list(blocks.values())
