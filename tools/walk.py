"""Counts the way of a `client.call` with an array through the package: files, calls and changes of file.

    python tools/walk.py [--files]

The graph runs in processes: the client's side is counted here, the actor's in its worker, each over many calls. The
array has 16 KiB, the handler loans one and answers with it. `--files` lists the files with the calls into each.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np

from slabwire import Actor, Graph

ROOT = str(Path(__file__).resolve().parents[1])
CALLS = 200


class Walk:
    """What a profile hook has seen of the package, in this thread."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.changes = 0
        self._last = ""

    def begin(self) -> None:
        sys.setprofile(self._hook)

    def end(self) -> dict[str, Any]:
        sys.setprofile(None)
        return {"calls": dict(self.calls), "changes": self.changes}

    def _hook(self, frame: FrameType, event: str, _argument: object) -> None:
        path = frame.f_code.co_filename
        if event != "call" or not path.startswith(ROOT) or path == __file__ or "/.venv/" in path:
            return
        name = path.removeprefix(ROOT + "/")
        self.calls[name] += 1
        self.changes += name != self._last
        self._last = name


class Copies(Actor):
    def on_start(self) -> None:
        self.walk = Walk()

    def copied(self, array: np.ndarray) -> np.ndarray:
        loan = self.loan(array.shape, array.dtype)
        loan[:] = array
        return loan

    def watched(self, on: bool) -> dict[str, Any]:
        if not on:
            return self.walk.end()
        self.walk = Walk()
        self.walk.begin()
        return {}


graph = Graph("walk")
copies = graph.add(Copies)
graph.expose(copies.copied, copies.watched)


def main() -> None:
    array = np.zeros(4096, np.float32)
    with graph.run() as running:
        client, mine = running.client, Walk()
        for _ in range(CALLS):
            client.call("copies.copied", array)
        client.call("copies.watched", True)
        mine.begin()
        for _ in range(CALLS):
            client.call("copies.copied", array)
        here = mine.end()
        there = client.call("copies.watched", False)
    sides = (("client", here), ("worker", there))
    for name, seen in sides:
        calls = sum(seen["calls"].values()) / CALLS
        print(f"{name}: {len(seen['calls'])} files, {calls:.0f} calls, {seen['changes'] / CALLS:.0f} changes of file")
    together = Counter(here["calls"]) + Counter(there["calls"])
    print(f"together: {len(together)} files, {sum(together.values()) / CALLS:.0f} calls")
    if "--files" in sys.argv:
        for path, calls in together.most_common():
            print(f"  {calls / CALLS:6.2f}  {path}")


if __name__ == "__main__":
    main()
