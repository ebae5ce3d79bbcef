"""Another checkout's contestants, in a process that runs that checkout's code and visits them when it is told to.

Both sides of the conversation stand here, for each checkout has its own copy: lines of JSON over a socket pair. The
other side names what it can visit, `{"cells": [[case, x, contestant], ...]}`; each order, `{"visit": number}`, is
answered with what that visit measured, `{"samples": [[case, x, contestant, [µs, ...], verified], ...]}`, until
`{"done": true}`. A bench that measures in several parts does this once a part.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

from .contestant import BenchError
from .line import Line
from .measure import Case, Cell, Measurement, Results

VISITED_BY = "--visited-by"
# The other checkout closes its graphs.
_END_WITHIN_S = 30.0

# What one visit measured: of each cell the samples in µs, and how many answers were checked.
Samples = Iterable[tuple[Cell, list[float], int]]


class Rival:
    """The side that gives the orders. `folder` is a checkout of Slabwire, `arguments` are those of `slabwire bench`.

    The first of them is the bench's name.
    """

    def __init__(self, folder: Path, arguments: Sequence[str]) -> None:
        self.folder = folder.resolve()
        self.results: Results = {}
        self._arguments = arguments
        self._numbers: dict[Cell, int] = {}

    def __enter__(self) -> Self:
        self._package = TemporaryDirectory(prefix="slabwire-bench-")
        (Path(self._package.name) / "slabwire").symlink_to(self.folder)
        here, there = socket.socketpair()
        with there:
            command = [sys.executable, "-m", "slabwire", "bench", *self._arguments, VISITED_BY, str(there.fileno())]
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[there.fileno()],
                # All processes of that side find that checkout's package before any that is installed.
                env={**os.environ, "PYTHONPATH": self._package.name},
            )
        self._line = Line(here)
        return self

    def __exit__(self, *_: object) -> None:
        self._line.close()
        try:
            self._process.wait(_END_WITHIN_S)
        except subprocess.TimeoutExpired:
            self._process.terminate()
            self._process.wait()
        finally:
            self._package.cleanup()

    def begin(self) -> None:
        """Hears what can be visited in this part. Raises BenchError, as all else here, where the process has ended."""
        cells = [Cell(Case(text, x), contestant) for text, x, contestant in self._heard()["cells"]]
        self._numbers = {cell: number for number, cell in enumerate(cells)}

    def can_visit(self, cell: Cell) -> bool:
        return cell in self._numbers

    def visit(self, cell: Cell) -> None:
        """Notes what the visit measures in `results`; it may be more than that cell."""
        self._say({"visit": self._numbers[cell]})
        for text, x, contestant, samples, verified in self._heard()["samples"]:
            self.results.setdefault(Cell(Case(text, x), contestant), Measurement()).add(samples, verified)

    def end(self) -> None:
        """Ends a part."""
        self._say({"done": True})

    def describe(self) -> str:
        """The checkout by its folder's name, and its commit where git tells it."""
        command = ["git", "-C", str(self.folder), "describe", "--always", "--dirty"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except OSError:
            return self.folder.name
        return f"{self.folder.name} at {done.stdout.strip()}" if done.returncode == 0 else self.folder.name

    def _say(self, what: dict[str, Any]) -> None:
        try:
            self._line.say(what)
        except OSError:
            raise self._ended() from None

    def _heard(self) -> dict[str, Any]:
        try:
            return self._line.hear()
        except (EOFError, OSError):
            raise self._ended() from None

    def _ended(self) -> BenchError:
        return BenchError(
            f"the bench of {self.folder} has ended; why stands above. A checkout whose `slabwire bench` has no "
            "--against cannot take part"
        )


class Visited:
    """The side that obeys: it visits what it is told to. `descriptor` is its end of the socket pair."""

    def __init__(self, descriptor: int) -> None:
        try:
            self._line = Line(socket.socket(fileno=descriptor))
        except OSError as error:
            raise BenchError(
                f"{VISITED_BY} {descriptor} is no socket of the bench that orders visits: {error}"
            ) from None

    def begin(self, cells: Sequence[Cell]) -> None:
        self._line.say({"cells": [[each.case.text, each.case.x, each.contestant] for each in cells]})

    def order(self) -> int | None:
        """The number of the cell to visit; None at the end of a part. Raises BenchError when nobody orders any more."""
        try:
            heard = self._line.hear()
        except (EOFError, OSError):
            raise BenchError("the bench that ordered visits has ended") from None
        return heard.get("visit")

    def answer(self, samples: Samples) -> None:
        self._line.say({"samples": [[c.case.text, c.case.x, c.contestant, took, n] for c, took, n in samples]})

    def serve(self, cells: Sequence[Cell], visit: Callable[[Cell], tuple[list[float], int]]) -> Results:
        """One part, whose visits measure one cell each."""
        results = {cell: Measurement() for cell in cells}
        self.begin(cells)
        while (number := self.order()) is not None:
            samples, verified = visit(cells[number])
            results[cells[number]].add(samples, verified)
            self.answer([(cells[number], samples, verified)])
        return results
