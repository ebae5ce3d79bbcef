"""What `make demo-page` runs: the graph of read_page.py, started by the CLI and called by a client, as a user would.

    python examples/demo_page.py

With a terminal the graph stays until Ctrl-C; without one, all ends by itself. The status is 0 if the page was read.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import ocr
import slabwire
from served import command, say, show

GRAPH = "read_page"
PAGES = 5


def show_page(answer: dict[str, Any], page: ocr.Pixels) -> None:
    say("what it read")
    print(*(f"  {line}" for line in answer["lines"]), sep="\n")
    folder = Path(tempfile.gettempdir()) / f"slabwire-demo-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    picture = folder / "page.png"
    ocr.draw(page, answer["outlines"], answer["lines"]).save(picture)
    print(f"\nThe lines drawn over the page: {picture}")


def read_pages(client: slabwire.Client, page: ocr.Pixels) -> None:
    answers = []
    seconds = []
    for _ in range(PAGES):
        began = time.perf_counter()
        answers.append(client.call("reader.page", page, timeout_s=60))
        seconds.append(time.perf_counter() - began)
    show_page(answers[-1], page)
    say(f"milliseconds per stage ({PAGES} pages, one after the other)")
    stages = {stage: [answer["milliseconds"][stage] for answer in answers] for stage in answers[0]["milliseconds"]}
    stages["whole page, as the client sees it"] = [each * 1e3 for each in seconds]
    for stage, values in stages.items():
        print(f"  {stage:36}" + " ".join(f"{value:7.1f}" for value in values))


def demonstrate() -> None:
    with slabwire.connect(GRAPH) as client:
        read_pages(client, ocr.sample_page())
    say("how its processes are doing")
    command("top", "--once", GRAPH)


if __name__ == "__main__":
    sys.exit(show(GRAPH, "read_page.py", demonstrate))
