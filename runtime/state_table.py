"""A life cycle as a table: which event leads from which state to which. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Generic, TypeVar

State = TypeVar("State", bound=str)
Event = TypeVar("Event", bound=str)


class ImpossibleEvent(RuntimeError):
    """An event that the state before it excludes: a fault of this package."""


class StateTable(Generic[State, Event]):
    """`rows` has, by state, the state that follows each event; what is missing cannot happen. `of` names what lives.

    Any thread.
    """

    def __init__(self, of: str, rows: Mapping[State, Mapping[Event, State]]) -> None:
        self.rows = rows
        self._of = of

    def after(self, state: State, event: Event) -> State:
        """The state that follows. Raises ImpossibleEvent."""
        following = self.rows[state].get(event)
        if following is None:
            raise ImpossibleEvent(f"{self._of} that is {state!s} met the event {event!s}")
        return following
