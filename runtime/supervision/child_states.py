"""The life of a child process as its parent sees it: one table for workers and gateway. No I/O; time is an argument."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from ..postmortem.exit_reason import Kind
from ..state_table import StateTable

# "cancelled": it was told to leave while it was still starting. "retiring": it was told to leave and finishes its work.
# "left": it has said that its last code has run. "hung": it is late, and writes its stacks before it is killed.
# "reaped": the process has ended, and what it said last may still be on the way.
State = Literal["absent", "starting", "cancelled", "ready", "retiring", "left", "hung", "killed", "reaped"]
Event = Literal["spawned", "became_ready", "told_to_leave", "has_left", "was_late", "killed", "reaped", "concluded"]

# A child says by a socket that it is ready or has left: that news may come late, or twice, and then changes nothing. A
# child that leaves before it was ready has failed to start, and goes on in that state until it ends.
# The parent may tell or kill a child at any time. What is not in the table cannot happen.
_ROWS: Mapping[State, Mapping[Event, State]] = {
    "absent": {
        "spawned": "starting",
        "became_ready": "absent",
        "told_to_leave": "absent",
        "has_left": "absent",
        "killed": "absent",
    },
    "starting": {
        "became_ready": "ready",
        "told_to_leave": "cancelled",
        "has_left": "starting",
        "was_late": "hung",
        "killed": "killed",
        "reaped": "reaped",
    },
    "cancelled": {
        "became_ready": "retiring",
        "told_to_leave": "cancelled",
        "has_left": "cancelled",
        "was_late": "hung",
        "killed": "killed",
        "reaped": "reaped",
    },
    "ready": {
        "became_ready": "ready",
        "told_to_leave": "retiring",
        "has_left": "left",
        "was_late": "hung",
        "killed": "killed",
        "reaped": "reaped",
    },
    "retiring": {
        "became_ready": "retiring",
        "told_to_leave": "retiring",
        "has_left": "left",
        "was_late": "hung",
        "killed": "killed",
        "reaped": "reaped",
    },
    "left": {
        "became_ready": "left",
        "told_to_leave": "left",
        "has_left": "left",
        "was_late": "hung",
        "killed": "killed",
        "reaped": "reaped",
    },
    "hung": {
        "became_ready": "hung",
        "told_to_leave": "hung",
        "has_left": "hung",
        "killed": "killed",
        "reaped": "reaped",
    },
    "killed": {
        "became_ready": "killed",
        "told_to_leave": "killed",
        "has_left": "killed",
        "killed": "killed",
        "reaped": "reaped",
    },
    "reaped": {
        "became_ready": "reaped",
        "told_to_leave": "reaped",
        "has_left": "reaped",
        "killed": "reaped",
        "concluded": "absent",
    },
}
CHILD: StateTable[State, Event] = StateTable("a child", _ROWS)


@dataclass
class Life:
    """Where a child is in its life, and since when. `ended_in` is the state in which its last process ended."""

    start_within_s: float
    hang_after_s: float
    state: State = "absent"
    since_ns: int = 0
    started_ns: int = 0
    was_ready: bool = False
    ended_in: State = "absent"

    def happened(self, event: Event, now_ns: int) -> None:
        """Raises ImpossibleEvent for what the table does not have."""
        before, self.state = self.state, CHILD.after(self.state, event)
        if self.state != before:
            self.since_ns = now_ns
        if event == "spawned":
            self.started_ns, self.was_ready = now_ns, False
        elif event == "became_ready":
            self.was_ready = True
        elif event == "reaped":
            self.ended_in = before

    def overdue(self, sign_ns: int, now_ns: int) -> tuple[Kind, float] | None:
        """For what the process is late, and how many seconds it had; None for one that is in time.

        `sign_ns` is when a ready process last got on; 0 for one that has nothing to do. A sign older than this process
        is its predecessor's.
        """
        start: tuple[Kind, int, float] = "start_timeout", self.started_ns, self.start_within_s
        stop: tuple[Kind, int, float] = "stop_timeout", self.since_ns, self.hang_after_s
        hang: tuple[Kind, int, float] = "hang", max(sign_ns, self.since_ns) if sign_ns else now_ns, self.hang_after_s
        limits = {"starting": start, "cancelled": start, "ready": hang, "retiring": stop, "left": stop}
        kind, since_ns, within_s = limits.get(self.state, ("stopped", now_ns, 0.0))
        return (kind, within_s) if now_ns - since_ns > within_s * 1e9 else None
