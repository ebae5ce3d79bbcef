"""An HTTP server over TLS in a process of its own, which says what it holds: `python tls_process.py SETTINGS`."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import json
import os
import resource
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from http_stage import echo
from slabwire.actors.ingress.certificates.certificate import Certificate, read_pair
from slabwire.actors.ingress.http.server import HttpServer
from slabwire.actors.ingress.tls import terminator
from slabwire.runtime.host.descriptors import raise_limit
from tls_stage import terminator_of

_MALLINFO = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"


class Held(ctypes.Structure):
    """struct mallinfo2 of glibc (mallinfo(3)); `uordblks` is what is in use."""

    _fields_ = [(name, ctypes.c_size_t) for name in _MALLINFO.split()]


class Process:
    """The parent's side."""

    def __init__(self, certificate: Certificate, **settings: Any) -> None:
        told = {"chain": str(certificate.chain), "key": str(certificate.key), **settings}
        command = [sys.executable, __file__, json.dumps(told)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.pid = self._process.pid
        self.address = ("127.0.0.1", int(self._heard()))

    def holds(self) -> dict[str, int]:
        """Bytes in memory, of libssl and of Python's objects; descriptors; and what the server counts."""
        assert self._process.stdin is not None
        self._process.stdin.write("holds\n")
        self._process.stdin.flush()
        found: dict[str, int] = json.loads(self._heard())
        return found

    def close(self) -> int:
        """How it has ended."""
        self._process.communicate()
        return self._process.returncode

    def _heard(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()


@contextmanager
def process(certificate: Certificate, **settings: Any) -> Iterator[Process]:
    """It has to end well. Settings: `connections`, `minimum`, `timeout_s`."""
    made = Process(certificate, **settings)
    try:
        yield made
    finally:
        status = made.close()
    assert status == 0


def holds(server: HttpServer) -> dict[str, int]:
    gc.collect()
    library = ctypes.CDLL(None)
    allocated = 0
    if hasattr(library, "mallinfo2"):
        library.mallinfo2.restype = Held
        allocated = library.mallinfo2().uordblks
    return {
        "resident": int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize(),
        "malloc": allocated,
        "blocks": sys.getallocatedblocks(),
        "descriptors": len(os.listdir("/proc/self/fd")),
        **server.stats(),
    }


async def serve(chain: str, key: str, connections: int = 64, minimum: Any = "1.3", timeout_s: float = 60.0) -> None:
    terminator.HANDSHAKE_TIMEOUT_S = timeout_s
    certificate = read_pair(Path(chain), Path(key))
    server = HttpServer(echo, terminator_of("libssl", certificate, minimum), connections=connections)
    listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
    listener.setblocking(False)
    server.start([listener])
    print(server.port, flush=True)
    while await asyncio.to_thread(sys.stdin.readline):
        print(json.dumps(holds(server)), flush=True)
    await server.stop(0)


if __name__ == "__main__":
    raise_limit()
    asyncio.run(serve(**json.loads(sys.argv[1])))
