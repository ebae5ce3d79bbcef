"""The life of an input that outlives its call: its states, and which event leads from one to another. No I/O."""

from __future__ import annotations

from enum import StrEnum

from ..state_table import StateTable


class State(StrEnum):
    """Where an input stands. An input of a plain handler goes from TAKEN to FINISHED by a plain store when its handler
    returns: it is over within one call, and the table is not asked.
    """

    TAKEN = "taken"  # from its lane, or from a predecessor's table
    RUNNING = "running"  # its handler works on it, or a batch gathers it
    STOPPING = "stopping"  # nobody wants it any more, and its task was told to end
    SENDING = "sending"  # its handler is done, and outputs wait for room
    FINISHED = "finished"
    HANDED_ON = "handed on"  # the process goes, and a successor begins the input again: nothing that comes of it counts


class Event(StrEnum):
    """What happens to an input."""

    BEGIN = "begin"  # its handler gets it
    HOLD = "hold"  # its handler is done, and outputs find no room
    STOP = "stop"  # its caller has lost interest, or the time to drain is over
    FINISH = "finish"  # its handler is done, and all outputs have left or are abandoned
    HAND_ON = "hand on"  # the process goes


TAKEN, RUNNING, STOPPING, SENDING, FINISHED, HANDED_ON = State

# What is missing here cannot happen. While an output leaves the worker may hear that its caller is gone, which finishes
# the input: so what the same turn does next still finds it FINISHED.
_ROWS: dict[State, dict[Event, State]] = {
    TAKEN: {
        Event.BEGIN: RUNNING,
        Event.HOLD: SENDING,  # it was refused, and the answer that says so finds no room
        Event.STOP: STOPPING,
        Event.FINISH: FINISHED,
        Event.HAND_ON: HANDED_ON,
    },
    RUNNING: {
        Event.HOLD: SENDING,
        Event.STOP: STOPPING,
        Event.FINISH: FINISHED,
        Event.HAND_ON: HANDED_ON,
    },
    STOPPING: {Event.STOP: STOPPING, Event.FINISH: FINISHED, Event.HAND_ON: HANDED_ON},
    SENDING: {Event.STOP: STOPPING, Event.FINISH: FINISHED, Event.HAND_ON: HANDED_ON},
    FINISHED: {Event.HOLD: FINISHED, Event.STOP: FINISHED, Event.FINISH: FINISHED, Event.HAND_ON: FINISHED},
    HANDED_ON: dict.fromkeys(Event, HANDED_ON),
}
INPUT: StateTable[State, Event] = StateTable("an input", _ROWS)
