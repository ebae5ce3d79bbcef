"""A graph of this folder, started by the CLI in plain sight and stopped as Ctrl-C stops it: what the demos share."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import sysconfig
import threading
from collections.abc import Callable
from pathlib import Path
from typing import IO

HERE = Path(__file__).parent
SLABWIRE = Path(sysconfig.get_path("scripts")) / "slabwire"


def say(title: str) -> None:
    print(f"\n== {title}", flush=True)


def command(*arguments: str) -> None:
    """Run a command of the CLI in plain sight; ends the demo with its status if it fails."""
    print(f"$ slabwire {' '.join(arguments)}", flush=True)
    status = subprocess.run([SLABWIRE, *arguments], check=False).returncode
    if status != 0:
        raise SystemExit(f"demo: `slabwire {' '.join(arguments)}` ended with status {status}")


def _start(graph: str, script: str) -> subprocess.Popen[str]:
    """`slabwire run`, once it says that the graph is ready; what it says goes on being shown."""
    print(f"$ slabwire run {script}", flush=True)
    # A session of its own: Ctrl-C reaches this script alone, which then drains the graph in order.
    server = subprocess.Popen([SLABWIRE, "run", script], start_new_session=True, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    try:
        for line in server.stdout:
            print(line, end="", flush=True)
            if line.startswith(f"{graph} is ready"):
                threading.Thread(target=_show_rest, args=(server.stdout,), daemon=True).start()
                return server
    except BaseException:
        _stop(server)
        raise
    raise SystemExit(f"demo: `slabwire run` ended with status {server.wait()}; what it said stands above")


def _show_rest(lines: IO[str]) -> None:
    for line in lines:
        print(line, end="", flush=True)


def _stop(server: subprocess.Popen[str]) -> int:
    """Ask the graph to drain, as Ctrl-C does; its status."""
    if server.poll() is None:
        server.send_signal(signal.SIGTERM)
    return server.wait()


def show(graph: str, script: str, demonstrate: Callable[[], None]) -> int:
    """Runs the graph, then `demonstrate`. With a terminal the graph stays until Ctrl-C. Returns the graph's status."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    say("the graph: where each actor goes, and why")
    server = _start(graph, os.path.relpath(HERE / script))
    try:
        demonstrate()
        if sys.stdin.isatty() and sys.stdout.isatty():
            say(f"the graph goes on until Ctrl-C; try `slabwire top {graph}` elsewhere")
            server.wait()
    except KeyboardInterrupt:
        print("\ndemo: stopping the graph", flush=True)
    finally:
        status = _stop(server)
    if status != 0:
        print(f"demo: the graph ended with status {status}", file=sys.stderr)
    return status
