"""Memory that the supervisor keeps for actors: it outlives their processes, and ends with the graph."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from ...shm.layout import HEADER, LINE_NBYTES, MOST_PARAMETERS, Group, Layout, Word, round_up
from ...shm.segment import Segment, Stamp
from ..control.channel import Keep
from ..errors import LayoutError, OutOfMemory, ProtocolError
from ..graph.node import NAME

# A layout holds as many groups as its actor needs, so one or two are usual.
MOST_KEPT = 16

# What the supervisor knows of such memory: how many lines there are behind the header. The header bears the magic of
# the actor's own layout.
_LINE = Word("line", "what its actor has declared", "all", LINE_NBYTES)
KEPT = Layout("kept", Group("lines", "whom its actor says: one process for each line", (_LINE,), rows="lines"))
_HEADER_NBYTES = round_up(HEADER.row_nbytes, LINE_NBYTES)


class KeptMemory(NamedTuple):
    """One kept memory of an actor."""

    actor: str
    name: str
    stamp: Stamp
    segment: Segment


class KeptMemories:
    """All of one graph, by actor and name. One thread."""

    def __init__(self) -> None:
        self._memories: dict[tuple[str, str], KeptMemory] = {}

    def __iter__(self) -> Iterator[KeptMemory]:
        return iter(self._memories.values())

    def find(self, actor: str, ask: Keep) -> KeptMemory | None:
        """What was made at an earlier ask. Raises LayoutError where that was for another layout."""
        found = self._memories.get((actor, ask.name))
        if found is None:
            return None
        if (found.stamp, found.segment.nbytes) != (_stamp_of(ask), ask.nbytes):
            raise LayoutError(
                f"{actor} keeps {ask.name!r} with another layout, or other parameters of it ({found.segment.nbytes} "
                f"bytes, magic {found.stamp.magic:016x}) than were asked for now ({ask.nbytes} bytes, magic "
                f"{ask.magic:016x}); ask for the same, keep this under another name, or start the graph anew"
            )
        return found

    def make(self, actor: str, ask: Keep, room_nbytes: int) -> KeptMemory:
        """Makes it, where it fits into `room_nbytes`: all of its pages are taken. Raises OutOfMemory, LayoutError where
        the actor keeps too many already, ProtocolError for what no actor asks.
        """
        lines, rest = divmod(ask.nbytes - _HEADER_NBYTES, LINE_NBYTES)
        if not (NAME.fullmatch(ask.name) and lines > 0 and rest == 0 and 0 <= ask.magic < 1 << 64):
            raise ProtocolError(f"{actor} asked for kept memory {ask.name!r} of {ask.nbytes} bytes")
        if (names := [each.name for each in self if each.actor == actor]) and len(names) >= MOST_KEPT:
            raise LayoutError(
                f"{actor} keeps {MOST_KEPT} memories already, which is the most ({', '.join(names)}); put what "
                f"{ask.name!r} is to hold into the layout of one of them, as groups of its own"
            )
        if ask.nbytes > room_nbytes:
            raise OutOfMemory(
                f"{actor} cannot keep {ask.name!r} of {ask.nbytes} bytes: beside its slabs and what it keeps already "
                f"{max(0, room_nbytes)} bytes are left; give it more with memory_bytes= of graph.add"
            )
        purpose, stamp = f"memory {ask.name!r} that {actor} keeps", _stamp_of(ask)
        segment = Segment.create(KEPT, purpose, stamp=stamp, lines=lines)
        segment.unmap()
        made = self._memories[actor, ask.name] = KeptMemory(actor, ask.name, stamp, segment)
        return made


def _stamp_of(ask: Keep) -> Stamp:
    values = tuple(ask.parameters)
    if len(values) > MOST_PARAMETERS or not all(type(each) is int and 0 < each < 1 << 63 for each in values):
        raise ProtocolError(f"a layout has no parameters {values}")
    return Stamp(ask.magic, values)
