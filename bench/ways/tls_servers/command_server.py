"""A server of other people, run by its own main process as its users do."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic, sleep
from types import TracebackType
from typing import ClassVar, Self

from ....actors.ingress.certificates.certificate import Certificate
from ...harness.contestant import BenchError
from ...harness.process import descendants
from ..served_streams.asgi_server import Served, free_port

_HOST = "127.0.0.1"
_BACKLOG = 4096
_SERVING = (sys.executable, "-m", "slabwire.bench.ways.served_streams.serving")
_STARTS_WITHIN_S, _ENDS_WITHIN_S = 30.0, 5.0
_LOOK_EVERY_S = 0.02


class CommandServer:
    """The parent's side. `module` has the function `serve`, which is given a `Served` and does not come back."""

    name: ClassVar[str]
    title: ClassVar[str]
    module: ClassVar[str]
    target: ClassVar[str] = ""
    serves_large: ClassVar[bool] = True
    pushes: ClassVar[bool] = False

    def __init__(self, certificate: Certificate, processes: int) -> None:
        self._folder = TemporaryDirectory(prefix="slabwire-bench-")
        self.port = free_port()
        chain, key = str(certificate.public), str(certificate.key)
        served = Served(self.port, chain, key, processes, _BACKLOG, target=self.target)
        self._process = subprocess.Popen(
            [*_SERVING, self.module, json.dumps(asdict(served)), str(os.getpid())],
            cwd=self._folder.name,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for the parent alone, which decides what it means
        )
        try:
            self._await()
        except BaseException:
            self._close()
            raise

    def _await(self) -> None:
        until = monotonic() + _STARTS_WITHIN_S
        while True:
            with socket.socket() as probe:
                if probe.connect_ex((_HOST, self.port)) == 0:
                    return
            if self._process.poll() is not None:
                raise BenchError(f"{self.title} has ended, with {self._process.returncode}; why stands above")
            if monotonic() > until:
                raise BenchError(f"{self.title} has not started in {_STARTS_WITHIN_S:g} s")
            sleep(_LOOK_EVERY_S)

    def all_pids(self) -> list[int]:
        return [self._process.pid, *descendants(self._process.pid)]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def _close(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(_ENDS_WITHIN_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._folder.cleanup()


def require_program(name: str, package: str) -> str:
    """Its path. Raises ImportError, as a Python package that is not installed would: the peer is left out."""
    found = shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")
    if found is None:
        raise ImportError(f"no {name} on this machine; Debian has it as {package}", name=name)
    return found


def run_program(program: str, arguments: list[str], file: str, text: str) -> None:
    """Becomes that program, whose configuration is a file of the working directory."""
    Path(file).write_text(text)
    os.execv(program, [program, *arguments])
