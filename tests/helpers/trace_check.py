"""Whether a document is a trace that Perfetto reads."""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise
from typing import Any


def check(events: list[dict[str, Any]]) -> None:
    """Raises AssertionError for what the format does not allow, or a viewer would drop without a word.

    Google's "Trace Event Format": keys by phase, no overlap of slices on a track, ends of arrows within slices.
    """
    needed = {"X": {"ts", "dur"}, "s": {"ts", "id"}, "f": {"ts", "id", "bp"}, "i": {"ts", "s"}, "M": {"args"}}
    tracks: dict[tuple[int, int], list[tuple[float, float]]] = defaultdict(list)
    named, arrows = set(), defaultdict(list)
    for each in events:
        assert {"name", "ph", "pid", "tid"} | needed[each["ph"]] <= set(each)
        assert each.get("ts", 0) >= 0
        if each["ph"] == "X":
            tracks[each["pid"], each["tid"]].append((each["ts"], each["ts"] + each["dur"]))
        elif each["ph"] == "M" and each["name"] == "thread_name":
            named.add((each["pid"], each["tid"]))
        elif each["ph"] in "sf":
            arrows[each["id"]].append(each)
    assert set(tracks) <= named
    for found in tracks.values():
        ends = sorted(found)
        assert all(end <= begin + 1e-6 for (_, end), (begin, _) in pairwise(ends))
    for begin, end in arrows.values():
        assert (begin["ph"], end["ph"]) == ("s", "f")
        assert begin["ts"] <= end["ts"]
        for each in (begin, end):
            inside = (at <= each["ts"] < until for at, until in tracks[each["pid"], each["tid"]])
            assert any(inside)
