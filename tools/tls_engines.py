"""What TLS costs the ingress by each engine: memory of an idle connection, CPU of a handshake and of a small write.

    python tools/tls_engines.py

The server is a process of its own, whose CPU time and memory are read; engines take turns, so ratios hold on a machine
that others use. A handshake is one connection with one small GET.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from slabwire.actors.ingress.certificates.development import development_certificate
from slabwire.actors.ingress.http.listening import open_listeners
from slabwire.actors.ingress.http.server import HttpServer
from slabwire.actors.ingress.tls.libssl import libssl
from slabwire.actors.ingress.tls.libssl_terminator import LibsslTerminator
from slabwire.actors.ingress.tls.stdlib_terminator import StdlibTerminator

ENGINES = ("libssl", "stdlib")
IDLE, ROUNDS, HANDSHAKES, STREAMS, WRITES = 1000, 6, 60, 200, 4000
GET = b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n"
EVENT = b"x" * 208


async def answer(_scope: Any, _receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


def listen(address: str) -> socket.socket:
    host, _, port = address.removeprefix("tcp://").rpartition(":")
    listener = socket.create_server((host, int(port)), backlog=4096)
    listener.setblocking(False)
    return listener


def resident_nbytes() -> int:
    line = next(each for each in Path("/proc/self/status").read_text().splitlines() if each.startswith("VmRSS"))
    return int(line.split()[1]) * 1024


async def serve(engine: str, folder: str) -> None:
    """Answers lines on stdin: "cost" (CPU seconds, bytes resident), "write" (CPU seconds of WRITES small writes)."""
    certificate = development_certificate("localhost", Path(folder))
    terminator = StdlibTerminator([certificate]) if engine == "stdlib" else LibsslTerminator(libssl(), [certificate])
    server = HttpServer(answer, terminator, connections=2 * IDLE)
    server.start(open_listeners("127.0.0.1", 0, listen))
    print(server.port, flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        began = time.process_time()
        if line == "write\n":
            transports = [each.transport for each in server.state.connections]
            for number in range(WRITES):
                transports[number % len(transports)].write(EVENT)
                if number % 50 == 49:
                    await asyncio.sleep(0)
            print(time.process_time() - began, flush=True)
        else:
            print(began, resident_nbytes(), flush=True)


class Server:
    def __init__(self, engine: str, folder: str) -> None:
        command = [sys.executable, __file__, engine, folder]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.context = ssl.create_default_context(cafile=Path(folder) / "localhost.pem")
        self.port = int(self.heard())

    def heard(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def ask(self, line: str) -> list[float]:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return [float(each) for each in self.heard().split()]

    def connect(self, session: ssl.SSLSession | None = None) -> ssl.SSLSocket:
        plain = socket.create_connection(("127.0.0.1", self.port))
        return self.context.wrap_socket(plain, server_hostname="localhost", session=session)

    def get(self, session: ssl.SSLSession | None = None) -> ssl.SSLSession | None:
        with self.connect(session) as client:
            client.sendall(GET)
            client.recv(4096)
            return client.session

    def handshake_us(self, *, resumed: bool) -> float:
        session, (before, _) = self.get(), self.ask("cost")
        for _ in range(HANDSHAKES):
            session = self.get(session if resumed else None) if resumed else self.get()
        return (self.ask("cost")[0] - before) / HANDSHAKES * 1e6

    def write_us(self) -> float:
        clients = [self.connect() for _ in range(STREAMS)]
        took = self.ask("write")[0]
        for each in clients:
            each.close()
        self.get()
        return took / WRITES * 1e6

    def idle_kib(self) -> float:
        for each in [self.connect() for _ in range(50)]:
            each.close()
        before, clients = self.ask("cost")[1], [self.connect() for _ in range(IDLE)]
        for each in clients:
            each.sendall(GET)
            each.recv(4096)
        after = self.ask("cost")[1]
        for each in clients:
            each.close()
        return (after - before) / IDLE / 1024


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        development_certificate("localhost", Path(folder))
        servers = {engine: Server(engine, folder) for engine in ENGINES}
        tasks = {
            "idle connection, KiB": Server.idle_kib,
            "full handshake, µs": lambda server: server.handshake_us(resumed=False),
            "resumed handshake, µs": lambda server: server.handshake_us(resumed=True),
            f"write of {len(EVENT)} bytes, µs": Server.write_us,
        }
        for name, task in tasks.items():
            rounds = 1 if "KiB" in name else ROUNDS
            found = [[task(servers[engine]) for engine in ENGINES] for _ in range(rounds)]
            ours, theirs = (statistics.median(each) for each in zip(*found, strict=True))
            ratio = statistics.median(ours / theirs for ours, theirs in found)
            print(f"{name:28} libssl {ours:7.1f}   stdlib {theirs:7.1f}   ratio {ratio:.2f}")
        for server in servers.values():
            server.process.kill()
            server.process.wait()


if __name__ == "__main__":
    if len(sys.argv) == 3:
        asyncio.run(serve(*sys.argv[1:]))
    else:
        main()
