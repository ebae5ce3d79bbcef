"""A server of other people with an application that gets its tokens from a source, run by its own main process as its
users do.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic, sleep
from types import TracebackType
from typing import ClassVar, Self

from ....actors.ingress.certificates.certificate import Certificate
from ...harness.contestant import BenchError
from ...harness.load import Load
from ...harness.process import descendants
from ..many_streams.pacing import batches_of
from .application import BATCHES, SOCKET
from .server import SPARE, Pids, Steps
from .token_source import TokenSource

_HOST = "127.0.0.1"
_STARTS_WITHIN_S, _ENDS_WITHIN_S = 30.0, 5.0
_LOOK_EVERY_S = 0.02


@dataclass(frozen=True)
class Served:
    """What a server is told. `backlog` is also how many requests it is to have in flight in each process."""

    port: int
    chain: str
    key: str
    processes: int
    backlog: int
    target: str
    host: str = _HOST


class AsgiServer:
    """The parent's side. `module` has the function `serve`, which is given a `Served` and does not come back."""

    name: ClassVar[str]
    title: ClassVar[str]
    module: ClassVar[str]
    source: ClassVar[type[TokenSource]]
    answers_briefly = True

    def __init__(self, load: Load, certificate: Certificate, processes: int) -> None:
        self._folder = TemporaryDirectory(prefix="slabwire-bench-")
        self.port = free_port()
        path, self._pace = Path(self._folder.name) / "socket", load.pace
        batches = batches_of(load.streams)
        self._source = self.source(path, self.title, batches)
        chain, key = str(certificate.public), str(certificate.key)
        served = Served(self.port, chain, key, processes, load.streams + SPARE, self.source.target)
        command = [sys.executable, "-m", f"{__package__}.serving", f".{self.module}"]
        self._process = subprocess.Popen(
            [*command, json.dumps(asdict(served)), str(os.getpid())],
            cwd=self._folder.name,  # granian takes a folder with an __init__.py for a part of the target's name
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for the parent alone, which decides what it means
            env={**os.environ, SOCKET: str(path), BATCHES: str(batches)},
        )
        try:
            self._await_processes(processes)
        except BaseException:
            self._close()
            raise

    def _await_processes(self, processes: int) -> None:
        until = monotonic() + _STARTS_WITHIN_S

        def check() -> None:
            self._check_runs()
            if monotonic() > until:
                raise BenchError(f"{self.title} has not started in {_STARTS_WITHIN_S:g} s")

        self._source.await_connected(processes, check)
        while not self._listens():
            check()
            sleep(_LOOK_EVERY_S)

    def _check_runs(self) -> None:
        if self._process.poll() is not None:
            raise BenchError(f"{self.title} has ended, with {self._process.returncode}; why stands above")

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex((_HOST, self.port)) == 0

    def pids(self) -> Pids:
        return {"serving": [self._process.pid, *descendants(self._process.pid)], **self._source.pids()}

    def steps(self, count: int, pace: float | None = None) -> Steps:
        self._check_runs()
        return self._source.steps(count, pace or self._pace)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def _close(self) -> None:
        """Processes whose source has ended end at once, and the main one has nothing left to do."""
        self._source.close()
        self._process.terminate()
        try:
            self._process.wait(_ENDS_WITHIN_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._folder.cleanup()


def free_port() -> int:
    """Of this machine. Whoever takes it before the server does makes that fail, with the reason."""
    with socket.socket() as probe:
        probe.bind((_HOST, 0))
        port: int = probe.getsockname()[1]
        return port
