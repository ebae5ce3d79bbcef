"""The worker process: `python -m slabwire.runtime.worker.main`, as the supervisor starts it.

It builds itself from what the supervisor hands over: the graph in sealed memory, then bells, lanes and slabs.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import faulthandler
import gc
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from ..control.channel import Assignment, Offer, Start
from ..control.worker_line import Failed, Stopped
from ..dataplane.descriptor_channel import Channel, Link, Unheard, close_all
from ..error_text import described, exit_code, is_of, place_of, shown, text_of, traceback_of
from ..errors import Disconnected, SlabwireError
from ..host.affinity import repin
from ..host.forks import keep_from_children, own_signals
from ..host.inherited import put_right
from ..host.lifeline import HUNG_SIGNAL, die_with_parent, tie_forks
from ..host.no_terminal import explain_missing_terminal
from ..host.sealed_document import unpack_document
from ..logs.log_format import configure_logging
from ..logs.stamped_output import stamp_output
from ..spec import graph_from_plain
from .forked_child import Partition, end_child
from .garbage import Garbage
from .supervisor_line import SupervisorLine
from .worker import Worker

logger = logging.getLogger("slabwire")


class _Assigned(Unheard):
    """Hears what this process is to do, and the graph, from sealed memory."""

    def offered(self, offers: list[Offer], descriptors: list[int]) -> None:
        (self.assignment,) = (each for each in offers if isinstance(each, Assignment))
        packed = os.pread(descriptors[0], os.fstat(descriptors[0]).st_size, 0)
        close_all(descriptors)
        self.spec = graph_from_plain(unpack_document(packed))


def _failure(name: str, error: BaseException) -> Failed:
    """What the supervisor is told of an unwanted end. The traceback goes along, for crash reports."""
    text = _said_by(error)
    logger.error("%s could not go on: %s", name, text)
    return Failed(text, traceback_of(error), error.code if is_of(error, SlabwireError) else "")


def _said_by(error: BaseException) -> str:
    kind = type(error)  # the class that it says it has may be a lie, or raise
    if issubclass(kind, SlabwireError):
        return text_of(error)
    text = f"sys.exit({shown(exit_code(error))}) was called" if issubclass(kind, SystemExit) else described(error)
    place = place_of(error)
    return f"{text} ({place})" if place else text


def _status_of(error: BaseException) -> int:
    """What the process ends with: what user code called sys.exit with, 3 after any other error."""
    if not is_of(error, SystemExit):
        return 3
    code = exit_code(error)
    return int(code is not None) if type(code) not in (int, bool) else (code & 0xFF or int(code != 0))


def _stay(_number: int, _frame: FrameType | None) -> None:
    """Ctrl-C is for the process that runs the graph. An ignored signal would be ignored by actors' children, too."""


def main(words: Sequence[str] | None = None) -> int:
    """The process, by its command line or other words: 0 after a stop, 3 if it could not go on (and said why), else
    what user code called sys.exit with.
    """
    put_right()
    parser = argparse.ArgumentParser()
    for name in ("name", "control"):
        parser.add_argument(f"--{name}", required=True)
    for name in ("fd", "parent"):
        parser.add_argument(f"--{name}", type=int, required=True)
    options = parser.parse_args(words)
    die_with_parent(options.parent)
    tie_forks()
    signal.signal(signal.SIGINT, _stay)
    faulthandler.enable()
    faulthandler.register(HUNG_SIGNAL, all_threads=True)
    stamp_output()
    explain_missing_terminal()
    configure_logging(is_stamped=True)
    line = SupervisorLine(options.control, options.name)
    status, is_over = _work(options, line)
    with contextlib.suppress(Exception):
        line.close()
    gc.collect()  # what user code has left goes while Python is whole
    if not is_over:  # then it would be closed in the middle of Python's own end, and crash
        logging.shutdown()
        os._exit(status)
    return status


def _work(options: argparse.Namespace, line: SupervisorLine) -> tuple[int, bool]:
    """All that the process does: its status, and whether everything that it had begun has ended."""
    worker: Worker | None = None
    born, status, says_goodbye = os.getpid(), 0, False
    try:
        assigned = _Assigned()
        link = Link(Channel(keep_from_children(socket.socket(fileno=options.fd))), assigned)
        link.ask(Start())
        repin(os.getpid(), assigned.assignment.cores)  # ZeroMQ's threads too, which are there already
        graph = Path(options.control).parent.name  # of the run directory: a graph may run under another name
        assignment = assigned.assignment
        worker = Worker(options.name, link, line, assigned.spec, assignment, graph=graph, garbage=Garbage())
        asyncio.set_event_loop(worker.loop)
        threading.excepthook = worker.own.thread_died
        worker.loop.add_signal_handler(signal.SIGTERM, worker.stop)
        own_signals((signal.SIGTERM, signal.SIGINT))
        partition = Partition(worker)  # noqa: F841 - as long as this process lives
        worker.build()
        worker.start_actors()
        worker.run()
        says_goodbye = True
    except BaseException as error:
        if os.getpid() != born:
            end_child(error)
        if not is_of(error, Disconnected):  # else the supervisor is gone, and so is the graph
            line.report(_failure(options.name, error))
            status = _status_of(error)
    is_over = worker is None or _unwound(worker)
    if worker is not None and says_goodbye:
        worker.report(Stopped())
    return status, is_over


def _unwound(worker: Worker) -> bool:
    try:
        return worker.unwind()
    except BaseException as error:  # what ended the worker may come again, or a task may raise what ends a program
        logger.error("%s could not end its tasks: %s: %s", worker.name, type(error).__name__, error)
        return False


if __name__ == "__main__":
    sys.exit(main())
