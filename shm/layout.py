"""Where each word of a shared structure lies, who writes it and who reads it.

A layout is declared once, as groups of words with one writer each. Offsets are computed from it: every group starts
on a line of its own, so that no line ever has two writers (rule: one writer a cache line).
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b

from .errors import LayoutError

# Hardware prefetches cache lines of 64 bytes in aligned pairs, so two writers need 128 bytes between them.
LINE_NBYTES = 128
WORD_NBYTES = 8

_declared: dict[str, Layout] = {}


@dataclass(frozen=True)
class Word:
    """One field of a group. Words that are published by a store are 8 bytes; larger fields are published by another."""

    name: str
    meaning: str
    readers: str
    nbytes: int = WORD_NBYTES
    pairs_with: str = ""


@dataclass(frozen=True)
class Group:
    """Words with one writer. `rows` repeats the group: a number, or the name of a parameter of the layout.

    Rows of one group share lines, since they share their writer; `aligned` pads each row to whole lines.
    """

    name: str
    writer: str
    words: tuple[Word, ...]
    rows: int | str = 1
    aligned: int = WORD_NBYTES

    @property
    def row_nbytes(self) -> int:
        return round_up(sum(each.nbytes for each in self.words), self.aligned)


@dataclass(frozen=True)
class Place:
    """One word of a placed layout: its offset in row 0, and how far apart the rows are."""

    word: Word
    writer: str
    offset: int
    stride: int
    rows: int


HEADER = Group(
    "header",
    "creator, before anybody else has the descriptor",
    (
        Word("magic", "names layout and version: a digest of the declaration", "all"),
        Word("nbytes", "size of the whole segment", "all"),
        Word("pid", "process that created the segment", "all"),
        Word("started", "start time of that process in clock ticks since boot", "all"),
        Word("parameters", "up to four parameters of the layout, in order of their names", "all", nbytes=32),
    ),
)
MOST_PARAMETERS = 4


class Placed:
    """A layout with its parameters filled in: the offsets of all words, in bytes."""

    def __init__(self, layout: Layout, places: tuple[Place, ...], nbytes: int) -> None:
        self.layout = layout
        self.places = places
        self.nbytes = nbytes
        self._by_name = {each.word.name: each for each in places}

    def __getitem__(self, name: str) -> int:
        return self._by_name[name].offset

    def word(self, name: str, row: int = 0) -> int:
        """The index of word `name` in a memoryview of 8-byte words. Raises LayoutError for a row that there is not."""
        return self.offset(name, row) // WORD_NBYTES

    def offset(self, name: str, row: int = 0) -> int:
        """Where word `name` begins, in bytes. Raises LayoutError for a row that there is not."""
        place = self._by_name[name]
        if not 0 <= row < place.rows:
            raise LayoutError(f"layout {self.layout.name!r} has {place.rows} rows of {name!r}, and no row {row}")
        return place.offset + row * place.stride

    def rows(self, name: str) -> int:
        """How many rows of word `name` there are."""
        return self._by_name[name].rows


class Layout:
    """The declaration of one kind of segment. `parameters` are the names that groups use for their numbers of rows.

    Raises LayoutError where two groups or words have one name, a size makes no sense, or there are too many parameters.
    """

    def __init__(self, name: str, *groups: Group) -> None:
        self.name = name
        self.groups = (HEADER, *groups)
        self.parameters = tuple(sorted({each.rows for each in groups if isinstance(each.rows, str)}))
        self._reject_ambiguity()
        self._reject_odd_sizes()
        self.magic = int.from_bytes(blake2b(repr((name, self.groups)).encode(), digest_size=8).digest(), "little")
        _declared[name] = self

    def _reject_ambiguity(self) -> None:
        names = [word.name for group in self.groups for word in group.words]
        if len(set(names)) != len(names) or len({group.name for group in self.groups}) != len(self.groups):
            raise LayoutError(f"layout {self.name!r} uses a name twice: {names}")
        if len(self.parameters) > MOST_PARAMETERS:
            raise LayoutError(f"layout {self.name!r} has more than {MOST_PARAMETERS} parameters: {self.parameters}")

    def _reject_odd_sizes(self) -> None:
        for group in self.groups:
            if (
                group.aligned < WORD_NBYTES
                or group.aligned % WORD_NBYTES
                or (isinstance(group.rows, int) and group.rows < 1)
            ):
                raise LayoutError(
                    f"group {group.name!r} of layout {self.name!r}: rows of no words, or rows that split words"
                )
            for word in group.words:
                if word.nbytes < 1:
                    raise LayoutError(f"word {word.name!r} of layout {self.name!r} has {word.nbytes} bytes")

    def place(self, **parameters: int) -> Placed:
        """Computes all offsets. Each group starts on a new line, and the whole is a multiple of a line."""
        if set(parameters) != set(self.parameters) or any(value < 1 for value in parameters.values()):
            raise LayoutError(f"layout {self.name!r} takes positive {self.parameters}, not {parameters}")
        places: list[Place] = []
        offset = 0
        for group in self.groups:
            rows = parameters[group.rows] if isinstance(group.rows, str) else group.rows
            places += _places(group, offset, rows)
            offset = round_up(offset + rows * group.row_nbytes, LINE_NBYTES)
        return Placed(self, tuple(places), offset)

    def describe(self, **parameters: int) -> str:
        """The map as a table: offset, word, writer, readers, what it pairs with, meaning."""
        shown = parameters or dict.fromkeys(self.parameters, 2)
        placed = self.place(**shown)
        head = f"{self.name}: {placed.nbytes} bytes, magic {self.magic:016x}"
        if shown:
            head += ", shown with " + ", ".join(f"{name}={value}" for name, value in shown.items())
        rows = [("offset", "bytes", "rows", "word", "writer", "readers", "pairs with", "meaning")]
        for each in placed.places:
            word, repeat = each.word, f"{each.rows} x {each.stride}" if each.rows > 1 else ""
            place = f"{each.offset:#06x}", str(word.nbytes), repeat
            rows.append((*place, word.name, each.writer, word.readers, word.pairs_with, word.meaning))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return "\n".join([head, *("  " + "  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)])


def prove(placed: Placed) -> None:
    """Proves that no line has two writers, no byte two words, that every word is aligned and lies inside.

    Raises LayoutError with the first offence.
    """
    name = placed.layout.name
    owner_of_line: dict[int, str] = {}
    used = 0
    starts = [(start, place) for place in placed.places for start in _starts(place)]
    for start, place in sorted(starts, key=lambda each: each[0]):
        if start < used:
            raise LayoutError(f"{name}.{place.word.name} at {start} overlaps the word before it")
        if start % min(place.word.nbytes, WORD_NBYTES):
            raise LayoutError(f"{name}.{place.word.name} at {start} is not aligned")
        used = start + place.word.nbytes
        if used > placed.nbytes:
            raise LayoutError(
                f"{name}.{place.word.name} at {start} lies beyond the {placed.nbytes} bytes of the segment"
            )
        for line in range(start // LINE_NBYTES, (used - 1) // LINE_NBYTES + 1):
            if owner_of_line.setdefault(line, place.writer) != place.writer:
                raise LayoutError(f"line {line} of {name!r} has two writers: {owner_of_line[line]} and {place.writer}")


def _places(group: Group, offset: int, rows: int) -> list[Place]:
    places = []
    for word in group.words:
        places.append(Place(word, group.writer, offset, group.row_nbytes, rows))
        offset += word.nbytes
    return places


def _starts(place: Place) -> range:
    return range(place.offset, place.offset + place.rows * place.stride, place.stride)


def round_up(nbytes: int, multiple: int) -> int:
    """The least multiple of `multiple` that is at least `nbytes`."""
    return -(-nbytes // multiple) * multiple


def all_layouts() -> list[Layout]:
    """Every layout that the modules imported so far declare, by name."""
    return [_declared[name] for name in sorted(_declared)]
