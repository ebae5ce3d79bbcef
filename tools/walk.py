"""Counts the ways of a `client.call` with an array, and of a chat request over TLS, through the package.

    python tools/walk.py [--files] [--checkout FOLDER]

The graphs run in processes. For `client.call` the array has 16 KiB, the handler loans one and answers with it. For chat
the bytes of a request go by TLS to an ingress, through a cache that does not know the prompt, to a model that streams
four tokens, and all is read up to `[DONE]`; each request has a connection of its own. `--files` lists the files, with
the calls into each. `--checkout` counts in another checkout, whose interfaces are the same.

One line for each process says how many files of the package a trip passes, how many Python functions of the package it
calls (each step of a generator is a call), and how often two calls that follow each other go into different files. What
libraries do is not counted. A trip lasts from its beginning to the beginning of the next one, so what a worker does
behind its answer counts, too. Printed is the median of many trips, and behind it the least: a worker that finds nothing
to do for a while looks around, parks and shows how it fares, which takes calls that not every trip needs. On a busy
machine most trips find the worker parked, so compare two checkouts on the same machine at the same time. A file is
passed if at least every second trip calls into it. The last line of each way sums up the processes: a file counts once
there, wherever it is passed.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from array import array
from collections import Counter
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path
from statistics import median
from types import FrameType
from typing import Any, NamedTuple

import numpy as np

import slabwire
from slabwire import Actor, Graph
from slabwire.actors.ingress import Ingress
from slabwire.actors.prompt_cache import ResponseCache

ROOT = f"{Path(slabwire.__file__).parent}/"
CALLS = 300
REQUESTS = 40
# Trips before these fill caches: routes, types, lanes.
WARM_UP = 10
MODEL = "toy"


class Calls(NamedTuple):
    """Each call in one process: when (CLOCK_MONOTONIC, in nanoseconds), and into which of `names`."""

    names: list[str]
    times: Any
    files: Any


class Watch:
    """Notes each call into the package, in the thread that begins it."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._times, self._files = array("q"), array("q")

    def begin(self) -> None:
        sys.setprofile(self._hook)

    def end(self) -> Calls:
        sys.setprofile(None)
        return Calls(list(self._numbers), np.array(self._times), np.array(self._files))

    def _hook(self, frame: FrameType, event: str, _argument: object) -> None:
        path = frame.f_code.co_filename
        if event == "call" and path.startswith(ROOT) and path != __file__ and "/.venv/" not in path:
            self._times.append(time.monotonic_ns())
            self._files.append(self._numbers.setdefault(path.removeprefix(ROOT), len(self._numbers)))


class Watched(Actor):
    """An actor whose process can be watched."""

    def watched(self, on: bool) -> dict[str, Any]:
        if not on:
            return self._watch.end()._asdict()
        self._watch = Watch()
        self._watch.begin()
        return {}


class Copies(Watched):
    def copied(self, array: np.ndarray) -> np.ndarray:
        loan = self.loan(array.shape, array.dtype)
        loan[:] = array
        return loan


class WatchedIngress(Watched, Ingress):
    pass


class WatchedCache(Watched, ResponseCache):
    pass


class Toy(Watched):
    """A chat model that always says the same."""

    async def chat(
        self,
        messages: list[dict[str, Any]],
        max_tokens: int | None = None,
        temperature: float = 1.0,
        top_p: float = 1.0,
        seed: int | None = None,
        stop: list[str] | None = None,
        logprobs: int | None = None,
    ) -> AsyncIterator[dict[str, Any]]:
        yield {"prompt_tokens": 7}
        for text in ("The", " sky", " is", " blue"):
            yield {"text": text, "tokens": 1}
        yield {"finish_reason": "stop", "prompt_tokens": 7, "completion_tokens": 4, "cached_tokens": 0}

    def describe(self) -> dict[str, Any]:
        return {"model": MODEL, "context": 8192, "stats": {}}


class Trip(NamedTuple):
    """What one trip did in one process."""

    calls: Counter[str]
    changes: int


def trips(calls: Calls, beginnings: list[int]) -> list[Trip]:
    """The calls, cut where trips began. Before the first and behind the last beginning nothing counts."""
    found = []
    for begin, end in pairwise(np.searchsorted(calls.times, beginnings)):
        files = calls.files[begin:end]
        found.append(Trip(Counter(calls.names[each] for each in files), int(np.count_nonzero(np.diff(files)))))
    return found


def show(title: str, sides: dict[str, list[Trip]], *, with_files: bool) -> None:
    print(title)
    for name, found in {**sides, "together": together(sides)}.items():
        totals = [each.calls.total() for each in found]
        passed = {
            each: calls for each in set().union(*(trip.calls for trip in found)) if (calls := middle(found, each))
        }
        changes = median(each.changes for each in found)
        print(f"  {name + ':':10}{len(passed):4} files{median(totals):7.0f} calls (least {min(totals)})", end="")
        print(f"{changes:7.0f} changes of file")
    if with_files:
        for path, calls in sorted(passed.items(), key=lambda each: -each[1]):
            print(f"    {calls:7.1f}  {path}")


def middle(found: list[Trip], path: str) -> float:
    return median(each.calls[path] for each in found)


def together(sides: dict[str, list[Trip]]) -> list[Trip]:
    """Trip by trip the sum of all processes."""
    return [
        Trip(sum((each.calls for each in parts), Counter()), sum(each.changes for each in parts))
        for parts in zip(*sides.values(), strict=True)
    ]


def call_graph() -> Graph:
    graph = Graph("walk")
    copies = graph.add(Copies)
    graph.expose(copies.copied, copies.watched)
    return graph


def walk_calls(*, with_files: bool) -> None:
    values, mine, began = np.zeros(4096, np.float32), Watch(), []
    with call_graph().run() as running:
        client = running.client
        for _ in range(WARM_UP):
            client.call("copies.copied", values)
        client.call("copies.watched", True)
        mine.begin()
        for _ in range(CALLS + 1):
            began.append(time.monotonic_ns())
            client.call("copies.copied", values)
        here = mine.end()
        there = Calls(**client.call("copies.watched", False))
    show(
        "client.call with an array of 16 KiB",
        {"client": trips(here, began), "worker": trips(there, began)},
        with_files=with_files,
    )


def chat_graph(port: int) -> Graph:
    graph = Graph("walk-chat")
    model = graph.add(Toy, name="model")
    cache = graph.add(WatchedCache, name="cache", model="model")
    ingress = graph.add(WatchedIngress, name="ingress", models={MODEL: "cache"}, port=port)
    graph.expose(ingress.describe, ingress.watched, cache.watched, model.watched)
    return graph


def walk_chat(*, with_files: bool) -> None:
    sides, began = ("ingress", "cache", "model"), []
    with chat_graph(free_port()).run() as running:
        client = running.client
        told = client.call("ingress.describe")
        trust = ssl.create_default_context(cafile=told["certificate"])
        for number in range(WARM_UP + REQUESTS + 1):
            if number == WARM_UP:
                for each in sides:
                    client.call(f"{each}.watched", True)
            began.append(time.monotonic_ns())
            ask(told["url"].removeprefix("https://"), trust, f"question {number}")
        seen = {each: Calls(**client.call(f"{each}.watched", False)) for each in sides}
    show(
        "chat request over TLS, four tokens",
        {name: trips(calls, began[WARM_UP:]) for name, calls in seen.items()},
        with_files=with_files,
    )


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def ask(address: str, trust: ssl.SSLContext, content: str) -> None:
    """One request, and its answer up to the last event."""
    connection = http.client.HTTPSConnection(address, context=trust)
    body = {"model": MODEL, "messages": [{"role": "user", "content": content}], "stream": True}
    connection.request("POST", "/v1/chat/completions", json.dumps(body), {"content-type": "application/json"})
    answer = connection.getresponse().read()
    connection.close()
    if not answer.rstrip().endswith(b"[DONE]"):
        raise SystemExit(f"the chat request failed: {answer[:500]!r}")


def in_checkout(folder: Path, words: list[str]) -> int:
    """Runs this script with the package of another checkout, which a link gives the package's name."""
    with tempfile.TemporaryDirectory() as names:
        Path(names, "slabwire").symlink_to(folder.resolve())
        return subprocess.run([sys.executable, __file__, *words], env={**os.environ, "PYTHONPATH": names}).returncode


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--files", action="store_true")
    parser.add_argument("--checkout", type=Path)
    options = parser.parse_args()
    words = ["--files"] if options.files else []
    if options.checkout is not None:
        return in_checkout(options.checkout, words)
    with tempfile.TemporaryDirectory() as folder:
        for name in ("RUN", "STATE", "CACHE"):
            os.environ[f"SLABWIRE_{name}_DIR"] = f"{folder}/{name.lower()}"
        walk_calls(with_files=options.files)
        walk_chat(with_files=options.files)
    return 0


if __name__ == "__main__":
    sys.exit(main())
