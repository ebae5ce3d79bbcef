"""The requests that their callers have lost interest in, as far as one actor instance knows."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator

from ...shm.consumer import Consumer
from ..message.capacities import EVERY_REQUEST, MOST_REMEMBERED, Key
from ..message.header import Header, Kind
from .inlets import Inlets


class Cancels:
    """Remembers them, and finds word of more behind inputs that must wait. One thread."""

    def __init__(self) -> None:
        self._keys: OrderedDict[Key, None] = OrderedDict()
        self._searched: dict[int, int] = {}  # lane to the record up to which it was searched

    def __contains__(self, header: Header) -> bool:
        return header.key in self._keys or (header.reply_to, EVERY_REQUEST) in self._keys

    def __bool__(self) -> bool:
        return bool(self._keys)

    def remember(self, key: Key) -> bool:
        """Adds one; False if it was known."""
        if key in self._keys:
            return False
        self._keys[key] = None
        if len(self._keys) > MOST_REMEMBERED:
            self._keys.popitem(last=False)
        return True

    def may_lie_in(self, lanes: Iterable[Consumer]) -> bool:
        """Whether records came, behind others that must wait, which nobody has searched."""
        held = (lane for lane in lanes if lane.cursor != lane.head)
        return any(lane.read_head() > max(lane.cursor + 1, self._searched.get(lane.lane, 0)) for lane in held)

    def found_in(self, inlets: Inlets) -> Iterator[Header]:
        """Word of cancels that are not known yet; their records stay where they are. Raises CorruptLane."""
        for lane in inlets.held or inlets.lanes:
            if lane.cursor == lane.head:
                continue
            end = lane.read_head()
            for sequence in range(max(lane.cursor, self._searched.get(lane.lane, 0)), end):
                header = inlets.header(lane, sequence)
                if header.kind == Kind.CANCEL and header.key not in self._keys:
                    yield header
            self._searched[lane.lane] = end
