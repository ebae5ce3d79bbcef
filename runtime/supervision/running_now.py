"""What the plain handlers of a worker are doing now: their rows in the flight recorder come at their end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ...shm.inflight import RUNNING_ROW, Inflight
from ...shm.segment import Segment
from ..dataplane.peers import LaneRecord, Peer
from ..message.header import Header
from ..postmortem.remains import header_at
from ..telemetry.flight_recorder import Event, Happening, Outcome
from ..telemetry.stats import CellStats


def running_now(peer: Peer, lanes: Mapping[int, LaneRecord]) -> Iterator[Event]:
    """An event for each actor of a worker that runs a plain handler, read from its counters, its table and its lanes.

    `lanes` are all lanes by number. The events have the number 0, for they are none of the recorder's yet.
    """
    for place, instance in enumerate(peer.instances):
        if peer.stats is not None and (found := _run(CellStats(peer.stats, place), peer.tables[instance], lanes)):
            begin_ns, header, lane, sequence, attempt = found
            cause = header.cause_lane, header.cause_sequence, header.reply_to, header.request, header.trace
            what = place, header.target, attempt, lane, sequence, *cause, header.sent_ns
            yield Event(0, Happening.INPUT, Outcome.ANSWERED, begin_ns, 0, *what, 0)


def _run(stats: CellStats, table: Segment, lanes: Mapping[int, LaneRecord]) -> tuple[int, Header, int, int, int] | None:
    """When it began, its input with the place of that, and at which attempt it is; None if nothing runs."""
    since = stats.words[stats.busy_since]
    left = next((each for each in Inflight(table).live() if each.row == RUNNING_ROW), None) if since else None
    lane = lanes.get(left.lane) if left is not None else None
    if left is None or lane is None:
        return None
    header = header_at(lane, left.sequence)
    # It has not gone on meanwhile: the record is given back behind the run alone.
    still = stats.words[stats.busy_since] == since and lane.returns.load("tail") == left.sequence
    return (since, header, left.lane, left.sequence, left.attempt) if still and header is not None else None
