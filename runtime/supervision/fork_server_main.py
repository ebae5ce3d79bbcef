"""The fork server: `python -m slabwire.runtime.supervision.fork_server_main`, as `fork_server` starts it.

It waits for orders, and turns its grandchildren into workers.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import os
import signal
import socket
import sys
from dataclasses import dataclass

from ..host.inherited import put_right
from ..host.lifeline import die_with_parent
from ..host.process_usage import stat_fields
from ..host.sealed_document import unpack_document
from ..worker import main as worker_main

_LARGEST_ORDER_NBYTES = 128 * 1024


@dataclass(frozen=True)
class _Order:
    """What to fork a worker with: the arguments of its command line, its environment, its output and its channel."""

    words: list[str]
    environment: dict[str, str]
    log: int
    channel: int


def main() -> int:
    """In the fork server it returns when the supervisor has gone; in each forked worker when that worker has ended."""
    put_right()
    parser = argparse.ArgumentParser()
    for name in ("fd", "parent"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("spare_title")
    options = parser.parse_args()
    die_with_parent(options.parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _require_one_thread()
    gc.collect()
    gc.freeze()  # pages that no collection touches stay shared
    with socket.socket(fileno=options.fd) as orders:
        order = _serve(orders)
    return 0 if order is None else _become_worker(order)


def _require_one_thread() -> None:
    """A fork copies the thread that forks and the locks that others hold."""
    if len(os.listdir("/proc/self/task")) > 1:
        sys.exit("something that Python loads at its start has begun a thread; workers are not forked then")


def _serve(orders: socket.socket) -> _Order | None:
    """Returns None at the end of the graph, and its order in every worker."""
    orders.send(b"ready")
    while True:
        packed, descriptors, _, _ = socket.recv_fds(orders, _LARGEST_ORDER_NBYTES, 2, socket.MSG_CMSG_CLOEXEC)
        if not packed:
            return None
        order = _Order(**unpack_document(packed), log=descriptors[0], channel=descriptors[1])
        adopted, tell_adopted = os.pipe()
        pid = _fork_twice(adopted, tell_adopted)
        if not pid:
            return order
        orders.send(str(pid).encode())
        os.write(tell_adopted, b"1")
        for each in (adopted, tell_adopted, *descriptors):
            os.close(each)


def _fork_twice(adopted: int, tell_adopted: int) -> int:
    """The grandchild's pid, less than 0 (an errno) if there is none; 0 in the grandchild once it was adopted."""
    reading, writing = os.pipe()
    try:
        between = os.fork()
    except OSError as error:
        os.close(reading)
        os.close(writing)
        return -int(error.errno or 1)
    if not between:
        _end_between(writing)
        os.close(reading)
        os.close(writing)
        os.close(tell_adopted)
        if not os.read(adopted, 1):  # the fork server was killed: nobody knows of us
            os._exit(1)
        os.close(adopted)
        return 0
    os.close(writing)
    answer = os.read(reading, 64)
    os.close(reading)
    os.waitpid(between, 0)
    return int(answer or -1)


def _end_between(writing: int) -> None:
    """Forks the worker, in which it returns; the process in between only says its number."""
    try:
        pid = os.fork()
    except OSError as error:
        pid = -int(error.errno or 1)
    if pid:
        os.write(writing, str(pid).encode())
        os._exit(0)


def _become_worker(order: _Order) -> int:
    """Runs this process as a worker, as if it had been started with these words, output and environment."""
    os.setsid()
    for number in (1, 2):
        os.dup2(order.log, number)
    os.close(order.log)
    os.environ.update(order.environment)
    words = [*order.words, "--fd", str(order.channel)]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    _rename([sys.executable, "-m", "slabwire.runtime.worker.main", *words])
    if "numpy.random" in sys.modules:  # else all workers would draw the same numbers
        sys.modules["numpy.random"].seed()
    return worker_main.main(words)


def _rename(command: list[str]) -> None:
    """What `ps` shows: the command line as if this worker had been started by itself."""
    sys.argv[1:] = command[3:]
    sys.orig_argv[:] = command
    fields = stat_fields(os.getpid())
    begin, end = int(fields[45]), int(fields[46])  # arg_start and arg_end of proc(5)
    text = b"\0".join(map(os.fsencode, command))[: max(0, end - begin - 1)]
    if begin:
        ctypes.memmove(begin, text.ljust(end - begin, b"\0"), end - begin)


if __name__ == "__main__":
    sys.exit(main())
