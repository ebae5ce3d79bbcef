"""The ways into one actor instance: lanes along its edges, and lanes of callers, whose words may be impossible."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ...shm.consumer import Consumer
from ...shm.errors import CorruptLane
from ...shm.lane import RECORD_NBYTES
from ..message.header import Header, Kind, read_header

# Looking into each of many lanes for every record would cost more than to handle it; few enough to be fair.
_RECORDS_A_TURN = 16
# What lies in a lane of calls, and in one of items of streams that callers send.
KINDS_OF_CALLS = frozenset((Kind.DATA, Kind.CANCEL))
KINDS_OF_ITEMS = frozenset((Kind.ITEM, Kind.END, Kind.ERROR))


class Inlets:
    """All lanes in, in the order in which they came. `routes` is how many routes the graph has, `of_clients` what kinds
    of records clients may write there. One thread.
    """

    def __init__(self, routes: int, of_clients: frozenset[Kind] = KINDS_OF_CALLS) -> None:
        self._routes = routes
        self._of_clients = of_clients
        self.lanes: list[Consumer] = []
        self.held: list[Consumer] = []  # lanes from which nothing is taken any more
        self.is_shut = False
        self._clients: dict[int, int] = {}  # by lane
        self.place = 0
        self.left = _RECORDS_A_TURN  # that the lane of this turn may still give

    def add(self, lane: Consumer, *, client: int = 0) -> None:
        """One more lane. If it is a client's, `client` is the number of its endpoint."""
        (self.held if self.is_shut else self.lanes).append(lane)
        if client:
            self._clients[lane.lane] = client

    def remove(self, lanes: Iterable[int]) -> None:
        for each in lanes:
            self._clients.pop(each, None)
        self.lanes = [lane for lane in self.lanes if lane.lane not in lanes]
        self.held = [lane for lane in self.held if lane.lane not in lanes]
        self.place = 0

    def find(self, lane: int) -> Consumer | None:
        return next((each for each in self.lanes if each.lane == lane), None)

    def shut(self) -> None:
        """Nothing is taken any more: all records that wait, and all that come, are for a successor."""
        self.is_shut = True
        self.held += self.lanes
        self.lanes, self.place = [], 0

    def look_into_held(self) -> None:
        """Takes note of records that have come: some may be cancels."""
        for lane in self.held:
            lane.available()

    def turn(self) -> None:
        """The turn goes to the next lane."""
        self.place = (self.place + 1) % max(1, len(self.lanes))  # a handler may have heard that all of them are gone
        self.left = _RECORDS_A_TURN

    def has_input(self) -> bool:
        return any(lane.available() for lane in self.lanes)

    def header(self, lane: Consumer, sequence: int) -> Header:
        """The header of a record. Raises CorruptLane if no correct peer can have written it."""
        # `lane.offset_of`, without the price of a call.
        header = read_header(lane.segment.bytes, lane.ring + sequence % lane.capacity * RECORD_NBYTES)
        client = self._clients.get(lane.lane) if self._clients else None
        if client is not None and (
            header.reply_to != client or header.kind not in self._of_clients or header.route >= self._routes
        ):
            raise CorruptLane(f"a record of kind {header.kind} for endpoint {header.reply_to} from client {client}")
        return header

    def next_headers(self) -> Iterator[Header]:
        """The headers of the records that are next in their lanes."""
        return (self.header(lane, lane.cursor) for lane in self.lanes if lane.available())

    # -- clients -----------------------------------------------------------------------------------------------------

    def is_clients(self, lane: int) -> bool:
        return lane in self._clients

    def lanes_of(self, client: int) -> list[int]:
        """The lanes by which a client's calls come in."""
        return [lane for lane, each in self._clients.items() if each == client]

    def corrupt_clients(self) -> set[int]:
        """The clients whose lanes hold impossible words."""
        return {
            self._clients[each.lane]
            for each in (*self.lanes, *self.held)
            if self.is_clients(each.lane) and not self._is_sound(each)
        }

    def _is_sound(self, lane: Consumer) -> bool:
        """Whether all words that its producer has written can be right, also those behind a record that waits."""
        try:
            for sequence in range(lane.cursor, lane.read_head()):
                self.header(lane, sequence)
        except CorruptLane:
            return False
        return True
