"""What `make demo` runs: the graph of read_page.py, started by the CLI and called by a client, as a user would.

    python examples/demo.py

With a terminal the graph stays until Ctrl-C; without one, all ends by itself. The status is 0 if the page was read.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from pathlib import Path
from typing import IO, Any

import ocr
import slabwire

HERE = Path(__file__).parent
SLABWIRE = Path(sysconfig.get_path("scripts")) / "slabwire"
GRAPH = "read_page"
PAGES = 5


def say(title: str) -> None:
    print(f"\n== {title}", flush=True)


def command(*arguments: str) -> None:
    """Run a command of the CLI in plain sight; ends the demo with its status if it fails."""
    print(f"$ slabwire {' '.join(arguments)}", flush=True)
    status = subprocess.run([SLABWIRE, *arguments], check=False).returncode
    if status != 0:
        raise SystemExit(f"demo: `slabwire {' '.join(arguments)}` ended with status {status}")


def start() -> subprocess.Popen[str]:
    """`slabwire run`, once it says that the graph is ready; what it says goes on being shown."""
    script = os.path.relpath(HERE / "read_page.py")
    print(f"$ slabwire run {script}", flush=True)
    # A session of its own: Ctrl-C reaches this script alone, which then drains the graph in order.
    server = subprocess.Popen([SLABWIRE, "run", script], start_new_session=True, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    try:
        for line in server.stdout:
            print(line, end="", flush=True)
            if line.startswith(f"{GRAPH} is ready"):
                threading.Thread(target=show_rest, args=(server.stdout,), daemon=True).start()
                return server
    except BaseException:
        stop(server)
        raise
    raise SystemExit(f"demo: `slabwire run` ended with status {server.wait()}; what it said stands above")


def show_rest(lines: IO[str]) -> None:
    for line in lines:
        print(line, end="", flush=True)


def stop(server: subprocess.Popen[str]) -> int:
    """Ask the graph to drain, as Ctrl-C does; its status."""
    if server.poll() is None:
        server.send_signal(signal.SIGTERM)
    return server.wait()


def show(answer: dict[str, Any], page: ocr.Pixels) -> None:
    say("what it read")
    print(*(f"  {line}" for line in answer["lines"]), sep="\n")
    folder = Path(tempfile.gettempdir()) / f"slabwire-demo-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    picture = folder / "page.png"
    ocr.draw(page, answer["outlines"], answer["lines"]).save(picture)
    print(f"\nThe lines drawn over the page: {picture}")


def read_pages(client: slabwire.Client | slabwire.RemoteClient, page: ocr.Pixels) -> None:
    answers = []
    seconds = []
    for _ in range(PAGES):
        began = time.perf_counter()
        answers.append(client.call("reader.page", page, timeout_s=60))
        seconds.append(time.perf_counter() - began)
    show(answers[-1], page)
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


def stay(server: subprocess.Popen[str]) -> None:
    say(f'the graph goes on until Ctrl-C; try `slabwire top {GRAPH}` or slabwire.connect("{GRAPH}") elsewhere')
    server.wait()


def main() -> int:
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    say("the graph: where each actor goes, and why")
    server = start()
    try:
        demonstrate()
        if sys.stdin.isatty() and sys.stdout.isatty():
            stay(server)
    except KeyboardInterrupt:
        print("\ndemo: stopping the graph", flush=True)
    finally:
        status = stop(server)
    if status != 0:
        print(f"demo: the graph ended with status {status}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
