"""A graph with several ingress processes on one port and a keeper of their ticket keys, and clients that resume."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import threading
from collections import Counter
from pathlib import Path
from typing import Any

from front_door import Counts
from slabwire import Actor, Graph
from slabwire.actors.ingress import Ingress, TicketKeys
from slabwire.actors.ingress.tickets.memory import RING, RingReader
from waiting import wait_until, worker_of


class Spy(Actor):
    """Tells what no actor may tell."""

    def secrets(self) -> list[str]:
        """Of all keys of the ring, in hexadecimal digits."""
        ring = RingReader(self.keep("ticketkeys.ring", RING)).latest()
        assert ring is not None
        return [secret.hex() for key in ring.keys for secret in (key.aes, key.hmac) if any(secret)]


def fleet(folder: Path, replicas: int, *, shared: bool = True, **rules: Any) -> Graph:
    """Ingress processes, each of which tells in `describe` how it fares."""
    graph = Graph("fleet")
    graph.add(Counts, name="counts", folder=str(folder))
    ingress = graph.add(
        Ingress,
        name="ingress",
        models={"counter": "counts"},
        port=0,
        replicas=replicas,
        routing="round_robin",
        tickets="ticketkeys" if shared else None,
        max_attempts=1,
    )
    keys, spy = graph.add(TicketKeys, **rules), graph.add(Spy)
    graph.expose(ingress.describe, keys.status, keys.rotate, keys.revoke, spy.secrets)
    return graph


class Client:
    """Connects to an ingress again and again, with the ticket of the last connection."""

    def __init__(self, running: Any) -> None:
        told = running.client.call("ingress.describe")
        host, _, port = told["url"].removeprefix("https://").rpartition(":")
        self.address = host, int(port)
        self.context = ssl.create_default_context(cafile=told["certificate"])
        self.session: ssl.SSLSession | None = None

    def visit(self, session: ssl.SSLSession | None = None) -> bool:
        """One request on a connection of its own; whether it was resumed. `session`: in place of the last one."""
        with (
            socket.create_connection(self.address) as plain,
            self.context.wrap_socket(plain, server_hostname="localhost", session=session or self.session) as connection,
        ):
            connection.sendall(b"GET /livez HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
            answer = b""
            while more := connection.recv(4096):  # the ticket comes before the answer
                answer += more
            assert answer.startswith(b"HTTP/1.1 200 "), answer
            self.session = connection.session
            return bool(connection.session_reused)


class Load:
    """Visits on several threads, until the end of the block; what went wrong is raised there."""

    def __init__(self, running: Any, threads: int) -> None:
        self.resumed: Counter[bool] = Counter()
        self._clients = [Client(running) for _ in range(threads)]
        for each in self._clients:
            each.visit()
        self._errors: list[BaseException] = []
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._visit, args=(each,)) for each in self._clients]

    def __enter__(self) -> Load:
        for each in self._threads:
            each.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for each in self._threads:
            each.join()
        if self._errors:
            raise self._errors[0]

    def _visit(self, client: Client) -> None:
        while not self._over.wait(0.01):
            try:
                self.resumed[client.visit()] += 1
            except BaseException as error:
                self._errors.append(error)
                return


def refused(running: Any, replicas: int) -> Counter[str]:
    """Why sessions were not resumed, of all ingress processes; one that has died begins anew."""
    counted: Counter[str] = Counter()
    for _ in range(replicas):
        counted.update(running.client.call("ingress.describe")["tls"]["tickets"]["refused"])
    return +counted


def killed(running: Any, worker: str) -> None:
    """Kills a worker, and waits until its successor is ready."""
    before = worker_of(running, worker)["pid"]
    os.kill(before, signal.SIGKILL)

    def has_successor() -> bool:
        line = worker_of(running, worker)
        return bool(line["state"] == "ready" and line["pid"] != before)

    wait_until(has_successor)


def states(running: Any) -> dict[str, str]:
    """The keys that there are, the oldest first."""
    return {each["name"]: each["state"] for each in running.client.call("ticketkeys.status")["keys"]}


def active(running: Any) -> str:
    """The name of the active key."""
    return next(name for name, state in states(running).items() if state == "active")
