"""Compares our fork server with the one of the package `multiprocess`, interleaved, and prints medians.

    pip install multiprocess
    python tools/fork_servers.py [--rounds 7]

Ways: `ours`; `multiprocess` with the runtime preloaded; `tied`, the same with what we could add to it: the server dies
with its parent and a child with the server. Each round starts a new parent for each way. The parent starts ten
children, which have the runtime imported and do nothing but say so. Then one child exits with status 7, one is killed,
and the parent is killed while the others work. Once, the server is killed before the parent.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from statistics import median
from typing import Any
from unittest import mock

CHILDREN = 10
PRELOADED = "slabwire.runtime.worker.main"
WATCHED_S = 3.0
WORK_S = 20.0  # what a child does when nobody ends it
# Our fork server with one change: its children run `serve` in place of a worker.
OUR_SERVER = """
import sys
sys.path.insert(0, {folder!r})
from fork_servers import serve
from slabwire.runtime.supervision import fork_server_main
fork_server_main.worker_main.main = lambda words: serve(int(words[-1]), is_tied=True)
sys.exit(fork_server_main.main())
"""
# Preloaded by the server of the way `tied`.
TIE = "import os\nfrom slabwire.runtime.host.lifeline import die_with_parent\ndie_with_parent(os.getppid())\n"


def serve(descriptor: int, is_tied: bool = False) -> int:
    """A child: says when it runs, then ends with the status that it is told. Else it works, deaf to its parent.

    Our workers are always tied to their parent, which is the supervisor.
    """
    if is_tied:
        from slabwire.runtime.host.lifeline import die_with_parent

        die_with_parent(os.getppid())
    with socket.socket(fileno=descriptor) as channel:
        channel.send(str(time.monotonic_ns()).encode())
        status = channel.recv(16)
        if status != b"work":
            return int(status or 0)
        time.sleep(WORK_S)
    return 0


class Ours:
    """Children of this process, by the fork server of the supervisor."""

    def __init__(self) -> None:
        from slabwire.runtime.supervision.fork_server import ForkServer

        popen = subprocess.Popen
        program = OUR_SERVER.format(folder=str(Path(__file__).parent))

        def started(command: list[str], **settings: Any) -> Any:
            return popen([command[0], "-c", program, *command[3:]], **settings)

        with mock.patch.object(subprocess, "Popen", started):
            self._server = ForkServer()
        self._log = os.open(os.devnull, os.O_WRONLY)

    @property
    def server(self) -> int:
        return self._server.pid

    def start(self, channel: socket.socket) -> int:
        return self._server.fork_worker((), os.environ, self._log, channel.fileno())

    def end(self, pid: int) -> int | str:
        found = os.waitid(os.P_PID, pid, os.WEXITED)
        assert found is not None
        return found.si_status if found.si_code == os.CLD_EXITED else -found.si_status


class Multiprocess:
    """Children of the fork server of `multiprocess`."""

    def __init__(self, is_tied: bool) -> None:
        import multiprocess
        from multiprocess import forkserver

        self._is_tied, self._forkserver = is_tied, forkserver
        self._context = multiprocess.get_context("forkserver")
        self._context.set_forkserver_preload([*(["slabwire_tie"] if is_tied else []), "__main__", PRELOADED])
        self._processes: dict[int, Any] = {}

    @property
    def server(self) -> int:
        return int(self._forkserver._forkserver._forkserver_pid)

    def start(self, channel: socket.socket) -> int:
        process = self._context.Process(target=served, args=(channel, self._is_tied))
        process.start()
        self._processes[process.pid] = process
        return int(process.pid)

    def end(self, pid: int) -> int | str:
        self._processes[pid].join(WATCHED_S)
        code = self._processes[pid].exitcode
        return "unknown" if code is None else int(code)


def served(channel: socket.socket, is_tied: bool) -> None:
    sys.exit(serve(channel.detach(), is_tied))


def drive(way: str) -> None:
    """The parent: prints what it measured, then waits for its own death."""
    began = time.monotonic_ns()
    server: Ours | Multiprocess = Ours() if way == "ours" else Multiprocess(way == "tied")
    children: dict[int, socket.socket] = {}
    ran = []
    for _ in range(CHILDREN):
        near, far = socket.socketpair()
        with far:
            asked = time.monotonic_ns()
            children[server.start(far)] = near
        ran.append((asked, int(near.recv(64))))
    pids = list(children)
    others = sorted(set(_below(os.getpid())) - set(pids))
    document: dict[str, Any] = {
        "first_ms": (ran[0][1] - began) / 1e6,
        "all_ms": (ran[-1][1] - began) / 1e6,
        "next_ms": median((then - asked) / 1e6 for asked, then in ran[1:]),
        "child_pss_mb": median(map(pss_mb, pids)),
        "others_pss_mb": sum(map(pss_mb, others)),
        "others": len(others),
        "descriptors": len(os.listdir(f"/proc/{pids[-1]}/fd")),
        "inherited": sorted(_targets(pids[-1])),
        "is_child": _is_child(pids[0]),
        "pidfd_polls": _has_pidfd(pids[0]),
    }
    document["exit_7"], document["exit_7_ms"] = _ended(server, pids[0], lambda pid: children[pid].send(b"7"))
    document["killed"], document["killed_ms"] = _ended(server, pids[1], lambda pid: os.kill(pid, signal.SIGKILL))
    for pid in pids[3:]:
        children[pid].send(b"work")
    document["pids"] = [*pids[3:], *others]
    print(json.dumps(document), flush=True)
    sys.stdin.readline()
    os.kill(server.server, signal.SIGKILL)
    with contextlib.suppress(OSError):
        children[pids[2]].send(b"7")
    status = server.end(pids[2])
    time.sleep(0.5)  # the kernel has ended by then whom it will end
    print(json.dumps({"after_server": status, "lives": sum(map(_lives, pids[3:]))}), flush=True)
    sys.stdin.readline()


def _ended(server: Ours | Multiprocess, pid: int, end: Any) -> tuple[int | str, float]:
    began = time.monotonic_ns()
    end(pid)
    return server.end(pid), (time.monotonic_ns() - began) / 1e6


def _below(pid: int) -> Iterator[int]:
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in map(int, (task / "children").read_text().split()):
            yield child
            yield from _below(child)


def _targets(pid: int) -> Iterator[str]:
    """What a child's descriptors are, without numbers."""
    for each in os.listdir(f"/proc/{pid}/fd"):
        yield os.readlink(f"/proc/{pid}/fd/{each}").partition(":[")[0]


def _is_child(pid: int) -> bool:
    try:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def _has_pidfd(pid: int) -> bool:
    os.close(os.pidfd_open(pid))
    return True


def pss_mb(pid: int) -> float:
    """Memory of a process, shared pages divided among those that share them."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(each.split()[1]) for each in lines if each.startswith("Pss:")) / 1024


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def watch(pids: Iterable[int]) -> tuple[int, float]:
    """How many of them outlive their parent by seconds, and after how many milliseconds the last of the others went."""
    began = time.monotonic()
    left, gone_ms = set(pids), 0.0
    while left and time.monotonic() - began < WATCHED_S:
        dead = {pid for pid in left if not _lives(pid)}
        if dead:
            left -= dead
            gone_ms = (time.monotonic() - began) * 1e3
        time.sleep(0.0005)
    return len(left), gone_ms


def round_of(way: str, folder: str, *, kills_server: bool) -> dict[str, Any]:
    """One parent from its start to the end of all that it started."""
    command = [sys.executable, __file__, "--drive", way]
    path = os.pathsep.join(filter(None, (folder, os.environ.get("PYTHONPATH"))))
    one_thread = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    left_in = tempfile.mkdtemp(dir=folder)
    environment = {**os.environ, **one_thread, "PYTHONPATH": path, "TMPDIR": left_in}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment) as parent:
        assert parent.stdout is not None
        assert parent.stdin is not None
        found: dict[str, Any] = json.loads(parent.stdout.readline())
        if kills_server:
            parent.stdin.write("\n")
            parent.stdin.flush()
            found |= json.loads(parent.stdout.readline())
        parent.kill()
        found["orphans"], found["gone_ms"] = watch(found["pids"])
    found["left"] = len(os.listdir(left_in))
    for pid in found["pids"]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--drive", choices=("ours", "multiprocess", "tied"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.drive:
        drive(options.drive)
        return
    ways = ("ours", "multiprocess", "tied")
    rounds: dict[str, list[dict[str, Any]]] = {way: [] for way in ways}
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "slabwire_tie.py").write_text(TIE)
        for _ in range(options.rounds):
            for way in ways:
                rounds[way].append(round_of(way, folder, kills_server=False))
        serverless = {way: round_of(way, folder, kills_server=True) for way in ways}
    print(f"{'':44}" + "".join(f"{way:>14}" for way in ways))
    for name, text in FIGURES.items():
        print(f"{text:44}" + "".join(f"{_middle(rounds[way], name):>14}" for way in ways))
    for name, text in AFTER_SERVER.items():
        print(f"{text:44}" + "".join(f"{serverless[way][name]!s:>14}" for way in ways))
    for way in ways:
        print(f"descriptors of a child, {way}: {', '.join(rounds[way][0]['inherited'])}")


FIGURES = {
    "first_ms": "first child runs, server included, ms",
    "all_ms": f"the last of {CHILDREN} runs, ms",
    "next_ms": "one more child, ms",
    "child_pss_mb": "memory of a child (PSS), MB",
    "others_pss_mb": "memory of server and tracker (PSS), MB",
    "others": "processes beside parent and children",
    "descriptors": "descriptors of a child",
    "is_child": "the parent may wait for a child",
    "pidfd_polls": "the parent has a pidfd of a child",
    "exit_7": "status after exit 7",
    "exit_7_ms": "known after, ms",
    "killed": "status after SIGKILL",
    "killed_ms": "known after, ms",
    "orphans": f"alive {WATCHED_S:.0f} s after the parent's SIGKILL",
    "left": "temporary files and folders left by then",
    "gone_ms": "the last of the others went after, ms",
}
AFTER_SERVER = {
    "lives": f"children alive after the server's SIGKILL, of {CHILDREN - 3}",
    "after_server": "status of a child that exits with 7 then",
}


def _middle(found: list[dict[str, Any]], name: str) -> str:
    values = [each[name] for each in found]
    return f"{median(values):.1f}" if isinstance(values[0], float) else "/".join(sorted({str(each) for each in values}))


if __name__ == "__main__":
    main()
