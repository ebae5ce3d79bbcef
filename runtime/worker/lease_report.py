"""What a worker says of memory that is out: its own blocks, and those of others that it has received or passed on."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from ...shm.block import Block
from ...shm.lease import Lease
from ...shm.ledger import Entry, Ledger, Origin, user_line
from ...shm.pool import Pool
from ...shm.producer import Producer
from ...shm.slab import Slab
from ..actor.handler import place_of
from ..cell.cell import Cell
from ..cell.work import current
from ..dataplane.endpoint import Endpoint
from ..graph.compiled import Routing
from ..message.header import Header, Kind

logger = logging.getLogger("slabwire")

# Of what one worker names, the largest first: a table that somebody reads, not a dump.
MOST_BLOCKS = 1000
# Lines in the log at a stop.
MOST_LINES = 20


def origin_of_work() -> Origin:
    """Debug mode: the message that the running handler, or task, works on."""
    work = current.get()
    if work is None or work.handler is None:
        return Origin()
    return Origin(f"{work.handler.owner}.{work.handler.spec.port}", work.header.request, work.header.trace)


def receiver(routing: Routing, cells: Mapping[str, Cell]) -> Callable[[Header], tuple[Origin, str]]:
    """Debug mode: says for which port a record is, and where its handler stands."""

    def receive(header: Header) -> tuple[Origin, str]:
        if header.kind != Kind.DATA:
            return Origin(f"answer of {routing.ports[header.source]}", header.request, header.trace), user_line()
        handlers = (cell.handler(header.target) for cell in cells.values())
        handler = next(filter(None, handlers), None)
        port = str(routing.ports[header.target])
        return Origin(port, header.request, header.trace), place_of(handler) if handler is not None else ""

    return receive


def holdings(endpoint: Endpoint) -> dict[str, Any]:
    """Blocks of the own pool that are out, with the lanes that they are lent by; what was received and is kept; others'
    blocks that were passed on. Ages, ports and lines only in debug mode.
    """
    endpoint.reap()
    pool, lent, passed = endpoint.pool, *_lent(endpoint.producers)
    entries = {} if pool.ledger is None else {_place(block): entry for block, entry in pool.ledger.blocks.items()}
    out = sorted(_out(pool), key=lambda each: -each[0].block_nbytes)
    now = pool.ledger.clock() if pool.ledger is not None else 0
    return {
        "debug": pool.ledger is not None,
        "pool": pool.stats(),
        "blocks": [
            {
                "slab": slab.identifier,
                "block": index,
                "nbytes": slab.block_nbytes,
                "lent": lent.get((slab.identifier, index), []),
                **_told(entries.get((slab.identifier, index)), now),
            }
            for slab, index in out[:MOST_BLOCKS]
        ],
        "received": [
            {"slab": each.slab.identifier, "block": each.block, "lane": each.source.lane, **_told(entry, now)}
            for each, entry in (pool.ledger.leases() if pool.ledger is not None else [])
        ],
        "passed": passed,
    }


def _out(pool: Pool) -> list[tuple[Slab, int]]:
    """The blocks that are out, as slabs and indices: the pool itself keeps only those that are free."""
    return [(slab, index) for slab in pool.slabs.values() for index in range(slab.blocks) if slab.generation(index) % 2]


def _place(block: Block) -> tuple[int, int]:
    return block.slab.identifier, block.index


def _lent(
    producers: Mapping[int, Producer],
) -> tuple[dict[tuple[int, int], list[dict[str, Any]]], list[dict[str, Any]]]:
    """The lanes by which own blocks are lent, by block, and those by which others' blocks were passed on."""
    own: dict[tuple[int, int], list[dict[str, Any]]] = {}
    passed = []
    for lane, producer in producers.items():
        given_back = producer.head - producer.waiting
        for generation, holder in producer.holders.values():
            way = {"lane": lane, "waits": generation > given_back}  # a loan's is its record's number plus 1
            if isinstance(holder, Block):
                own.setdefault(_place(holder), []).append(way)
            elif isinstance(holder, Lease):
                passed.append({"slab": holder.slab.identifier, "block": holder.block, **way})
    return own, passed


def _told(entry: Entry | None, now_ns: int) -> dict[str, Any]:
    if entry is None:
        return {}
    return {**entry.origin._asdict(), "line": entry.line, "age_s": (now_ns - entry.since_ns) / 1e9}


def tell_what_is_out(endpoint: Endpoint) -> None:
    """Debug mode, at a clean stop: says so in the log."""
    if endpoint.pool.ledger is not None:
        endpoint.reap()
        for line in last_words(endpoint.pool.ledger):
            logger.warning("%s", line)


def last_words(ledger: Ledger) -> list[str]:
    """Debug mode: a line for each block that is still out at a clean stop, and for each array that is still kept."""
    lines = [
        f"still out at the stop: {block.slab.block_nbytes} bytes, lent {block.lends} times, taken by {entry}"
        for block, entry in ledger.blocks.items()
    ]
    lines += [
        f"still kept at the stop: an array in a block of {lease.slab.block_nbytes} bytes, received by {entry}"
        for lease, entry in ledger.leases()
    ]
    more = len(lines) - MOST_LINES
    return [*lines[:MOST_LINES], *([f"and {more} more are still out or kept"] if more > 0 else [])]
