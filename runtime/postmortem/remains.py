"""What a dead worker has left in shared memory: what it was handling, its last records, what it had lent and leased.

Read by the supervisor, by descriptors that it holds. Other ends of the lanes live on and may be clients: any word may
be impossible, and nothing here is believed further than it is printed.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from typing import Any

from ...shm.bell import now_ns
from ...shm.errors import CorruptLane
from ...shm.inflight import RUNNING_ROW, Inflight
from ...shm.lane import RECORD_NBYTES
from ...shm.layout import LINE_NBYTES, WORD_NBYTES
from ..dataplane.peers import LaneRecord, Peer
from ..dataplane.switchboard import Switchboard
from ..message.header import Header, Kind, read_header
from ..telemetry.flight_recorder import Event, Happening, Outcome, read_events

# Of each: a report is for people, and bounded.
MOST_LANES = 24
MOST_RECORDS = 6
MOST_INPUTS = 64
MOST_EVENTS = 40
_MOST_ROWS = 4096
_LENT_NBYTES = 64
_LENT = struct.Struct("<QII")  # generation, slab, block; the rest says whose lease is forwarded


def remains(board: Switchboard, peer: Peer) -> dict[str, Any]:
    """All of it, as plain data."""
    lanes = [each for each in board.lanes.values() if peer in (each.producer, each.consumer)]
    lanes.sort(key=lambda each: each.purpose != "edge")  # those of callers may be many
    events = read_events(peer.recorder, MOST_EVENTS) if peer.recorder is not None else []
    return {
        "handling": [each for instance in peer.instances for each in _handling(board, peer, instance)],
        "lanes": [_lane(board, each) for each in lanes[:MOST_LANES]],
        "more_lanes": max(0, len(lanes) - MOST_LANES),
        "lent": [found for each in lanes if each.producer is peer for found in _loans(board, each)],
        "leased": [found for each in lanes if each.consumer is peer for found in _loans(board, each)],
        "events": [_event(board, peer, each, now_ns()) for each in events],
    }


def _handling(board: Switchboard, peer: Peer, instance: str) -> Iterator[dict[str, Any]]:
    """The inputs that its successor will take up, from the in-flight table."""
    table = Inflight(peer.tables[instance])
    for left in table.live()[:MOST_INPUTS]:
        lane = board.lanes.get(left.lane)
        if left.row == RUNNING_ROW and (lane is None or lane.returns.load("tail") != left.sequence):
            continue  # that one was finished
        header = header_at(lane, left.sequence) if left.row == RUNNING_ROW and lane else _header(table.record(left.row))
        if header is not None:
            source = lane.source if lane is not None else "somebody who is gone"
            yield {"actor": instance, "source": source, "attempt": left.attempt, **_told(board, header)}


def _told(board: Switchboard, header: Header) -> dict[str, Any]:
    return {
        "kind": Kind(header.kind).name.lower(),
        "port": _port(board, header.target) if header.kind == Kind.DATA else "",
        "request": header.request,
        "caller": _name_of(board, header.reply_to),
        "trace": header.trace,
    }


def _port(board: Switchboard, number: int) -> str:
    ports = board.routing.ports
    return str(ports[number]) if number < len(ports) else f"port {number}, which there is not"


def _name_of(board: Switchboard, endpoint: int) -> str:
    peer = board.peers.get(endpoint)
    return "" if not endpoint else peer.name if peer is not None else "somebody who is gone"


def _lane(board: Switchboard, lane: LaneRecord) -> dict[str, Any]:
    """A lane with the records that entered it last, oldest first."""
    capacity, head, tail = lane.segment.placed.rows("record"), lane.segment.load("head"), lane.returns.load("tail")
    # The slot behind the newest record is the next one's, who may be writing.
    numbers = range(max(0, head - min(MOST_RECORDS, capacity - 1)), head)
    found = [(number, header_at(lane, number)) for number in numbers]
    records = [
        {"number": number, "waits": number >= tail, **_told(board, header)}
        for number, header in found
        if header is not None
    ]
    return {
        "source": lane.source,
        "target": lane.target,
        "purpose": lane.purpose,
        "waiting": lane.waiting(),
        "capacity": capacity,
        "records": records,
    }


def header_at(lane: LaneRecord, number: int) -> Header | None:
    """The header of a record by its number, or what has been written over it; None for an impossible one."""
    capacity = lane.segment.placed.rows("record")
    start = lane.segment.placed["record"] + number % capacity * RECORD_NBYTES
    return _header(memoryview(os.pread(lane.segment.fd, RECORD_NBYTES, start)))


def _header(record: memoryview) -> Header | None:
    """None for what no correct peer can have written."""
    try:
        return read_header(record, 0)
    except (CorruptLane, struct.error):
        return None


def _loans(board: Switchboard, lane: LaneRecord) -> list[dict[str, Any]]:
    """The blocks that were lent through a lane and are not back, by slab."""
    rows = min(lane.returns.placed.rows("released"), _MOST_ROWS)
    lent = os.pread(lane.segment.fd, rows * _LENT_NBYTES, lane.segment.placed["lent"])
    ended = memoryview(os.pread(lane.returns.fd, rows * WORD_NBYTES, lane.returns.placed["released"])).cast("Q")
    head = lane.segment.load("head")
    blocks: dict[int, int] = {}
    for row in range(len(lent) // _LENT_NBYTES):
        generation, slab, _ = _LENT.unpack_from(lent, row * _LENT_NBYTES)
        if ended[row] < generation <= head:
            blocks[slab] = blocks.get(slab, 0) + 1
    ends = {"source": lane.source, "target": lane.target}
    return [{**ends, "blocks": count, **_of_slab(board, slab, count)} for slab, count in blocks.items()]


def _of_slab(board: Switchboard, number: int, count: int) -> dict[str, Any]:
    slab = board.slabs.get(number)
    if slab is None:
        return {"owner": "somebody who is gone", "nbytes": 0}
    placed = slab.segment.placed
    return {
        "owner": slab.owner.name,
        "nbytes": count * placed.rows("payload") * LINE_NBYTES // placed.rows("generation"),
    }


def _event(board: Switchboard, peer: Peer, event: Event, now: int) -> dict[str, Any]:
    """A row of the flight recorder."""
    ago_s = (now - event.begin_ns) / 1e9
    if event.happening != Happening.INPUT:
        return {"ago_s": ago_s, "what": event.happening.name.lower(), "pid": event.pid}
    lane = board.lanes.get(event.lane)
    return {
        "ago_s": ago_s,
        "what": "input",
        "actor": peer.instances[event.actor] if event.actor < len(peer.instances) else "",
        "port": _port(board, event.port),
        "source": lane.source if lane is not None else "somebody who is gone",
        "number": event.sequence,
        "request": event.request,
        "trace": event.trace,
        "attempt": event.attempt,
        "outcome": Outcome(event.outcome).name.lower() if event.end_ns else "",
        "took_s": (event.end_ns - event.begin_ns) / 1e9 if event.end_ns else None,
    }
