"""Pages a second of examples/read_page.py, beside the same models straight through ONNX Runtime in one script.

    python -m slabwire.bench.pages.read_page [--rounds 7] [--pages 6] [--json FILE]

First every page's text is compared line by line. Then the ways take turns, round after round, so that what the machine
does meanwhile falls on all of them; printed are medians over the rounds.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import click
import numpy as np

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
sys.path.insert(0, str(EXAMPLES))

import ocr  # noqa: E402
import read_page  # noqa: E402
from read_page_straight import StraightReader  # noqa: E402

IN_FLIGHT = 4
Read = Callable[[ocr.Pixels], list[str]]


def pages(count: int) -> list[ocr.Pixels]:
    """The sample page, and copies of it with a little noise, so that no page is quite like another."""
    page = ocr.sample_page()
    generator = np.random.default_rng(7)
    noise = (generator.integers(-4, 5, page.shape) for _ in range(count - 1))
    return [page, *(np.clip(page + each, 0, 255).astype(np.uint8) for each in noise)]


@contextmanager
def straight(threads: int) -> Iterator[Read]:
    reader = StraightReader(threads)
    yield lambda page: reader.page(page)[0]


@contextmanager
def graph(replicas: int) -> Iterator[Read]:
    with read_page.build(replicas, name=f"read_page_{replicas}").run() as running:
        yield lambda page: list(running.client.call("reader.page", page, timeout_s=120)["lines"])


def one_by_one(read: Read, all_pages: list[ocr.Pixels]) -> None:
    for page in all_pages:
        read(page)


def side_by_side(read: Read, all_pages: list[ocr.Pixels]) -> None:
    with ThreadPoolExecutor(IN_FLIGHT) as pool:
        list(pool.map(read, all_pages))


def rate(work: Callable[[Read, list[ocr.Pixels]], None], read: Read, all_pages: list[ocr.Pixels]) -> float:
    began = time.perf_counter()
    work(read, all_pages)
    return len(all_pages) / (time.perf_counter() - began)


def compare(ways: dict[str, Read], all_pages: list[ocr.Pixels]) -> int:
    """How many lines all ways agree on; ends the bench where they do not."""
    first, *others = ways
    lines = 0
    for number, page in enumerate(all_pages):
        expected = ways[first](page)
        lines += len(expected)
        for other in others:
            found = ways[other](page)
            if found != expected:
                raise SystemExit(f"page {number}: {other} reads {found}, {first} reads {expected}")
    return lines


def machine() -> dict[str, Any]:
    text = Path("/proc/cpuinfo").read_text()
    names = [line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("model name")]
    return {"processor": names[0] if names else os.uname().machine, "cores": len(os.sched_getaffinity(0))}


@click.command()
@click.option("--rounds", default=7, show_default=True, help="Turns that each way gets.")
@click.option("--pages", "count", default=6, show_default=True, help="Pages in a turn.")
@click.option("--json", "target", type=click.Path(dir_okay=False, path_type=Path), help="Write the figures here too.")
def main(rounds: int, count: int, target: Path | None) -> None:
    """Pages a second: the graph with one and two replicas beside one straight script, interleaved."""
    all_pages = pages(count)
    with ExitStack() as stack:
        ways: dict[str, Read] = {
            "straight, 1 thread": stack.enter_context(straight(1)),
            "straight, 2 threads": stack.enter_context(straight(2)),
            "graph, 1 replica": stack.enter_context(graph(1)),
            "graph, 2 replicas": stack.enter_context(graph(2)),
        }
        lines = compare(ways, all_pages)
        print(f"{count} pages, {lines} lines: the same text, line for line, by {len(ways)} ways", flush=True)
        rates: dict[str, dict[str, list[float]]] = {name: {"one": [], "several": []} for name in ways}
        for number in range(rounds):
            if sys.stderr.isatty():
                print(f"\rround {number + 1} of {rounds}", end="", file=sys.stderr, flush=True)
            for name, read in ways.items():
                rates[name]["one"].append(rate(one_by_one, read, all_pages))
                work = side_by_side if name.startswith("graph") else one_by_one
                rates[name]["several"].append(rate(work, read, all_pages))
        print(file=sys.stderr)
    report(rates, target)


def report(rates: dict[str, dict[str, list[float]]], target: Path | None) -> None:
    about = machine()
    print(f"{about['processor']}, {about['cores']} cores; pages a second, medians of {len(rates)} interleaved ways")
    base = rates["straight, 1 thread"]
    print(f"{'':22}{'one at a time':>16}{f'{IN_FLIGHT} in flight':>16}{'times straight':>16}")
    for name, each in rates.items():
        times = median(now / then for now, then in zip(each["several"], base["several"], strict=True))
        print(f"{name:22}{median(each['one']):16.2f}{median(each['several']):16.2f}{times:16.2f}")
    print("(a straight script reads one page after the other in both columns)")
    if target is not None:
        target.write_text(json.dumps({"machine": about, "pages_per_s": rates}, indent=1) + "\n")


if __name__ == "__main__":
    main()
