"""Listening sockets that the supervisor holds: what waits in them outlives a worker, and they go with the graph."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import select
import signal
import socket
import stat
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from fake_graphs import invoke
from kept_stage import Door
from slabwire import Graph, StartError
from slabwire.runtime.clients.control import Control
from slabwire.runtime.control.verbs import Restart
from slabwire.runtime.dataplane.listen_address import UnixAddress, numeric, read_address
from slabwire.runtime.dataplane.listeners import MOST_SOCKETS, Listeners
from waiting import wait_until, worker_of

ANY = "tcp://127.0.0.1:0"


def graph_with(**options: Any) -> Graph:
    graph = Graph("held")
    door = graph.add(Door, **options)
    graph.expose(door.open, door.only_listen, door.listen_at, door.who)
    return graph


def ask(place: Any) -> socket.socket:
    """A connection on which something was asked."""
    connection = socket.socket(socket.AF_UNIX if isinstance(place, str) else socket.AF_INET)
    connection.connect(place if isinstance(place, str) else tuple(place))
    connection.sendall(b"?")
    return connection


def answer(connection: socket.socket) -> list[str]:
    """Who answers: actor and pid."""
    with connection:
        said = b""
        while more := connection.recv(100):
            said += more
    return said.decode().split()


def kill(running: Any, worker: str) -> int:
    pid = int(worker_of(running, worker)["pid"])
    os.kill(pid, signal.SIGKILL)
    return pid


def successor(running: Any, worker: str, killed: int) -> int:
    def ready() -> int:
        line = worker_of(running, worker)
        return int(line["pid"]) if line["state"] == "ready" and line["pid"] != killed else 0

    return int(wait_until(ready))


def test_connections_that_wait_are_answered_by_the_successor_of_a_killed_worker() -> None:
    with graph_with().run() as running:
        place = running.client.call("door.only_listen", ANY)
        asked = [ask(place) for _ in range(20)]
        killed = kill(running, "door")
        asked += [ask(place) for _ in range(20)]  # while nobody is there
        pid = successor(running, "door", killed)
        assert running.client.call("door.open", ANY) == place
        assert [answer(each) for each in asked] == [["door", str(pid)]] * 40


def test_a_stopped_worker_leaves_nothing_unanswered_either() -> None:
    with graph_with(address=ANY).run() as running:
        place = running.client.call("door.only_listen", ANY)
        (pid,) = {int(answer(ask(place))[1]) for _ in range(3)}
        os.kill(pid, signal.SIGSTOP)
        asked = [ask(place) for _ in range(20)]
        os.kill(pid, signal.SIGKILL)
        new = successor(running, "door", pid)
        assert {tuple(answer(each)) for each in asked} == {("door", str(new))}


def test_a_restart_keeps_the_place() -> None:
    with graph_with(address=ANY).run() as running:
        place = running.client.call("door.only_listen", ANY)
        (before,) = {answer(ask(place))[1] for _ in range(3)}
        with Control(running.name) as control:
            control.request(Restart(actor="door", wait=True))
        (after,) = {answer(ask(place))[1] for _ in range(3)}
        assert after != before
        assert running.client.call("door.only_listen", ANY) == place


def test_one_replica_answers_what_waits_for_another_that_does_not_run() -> None:
    with graph_with(address=ANY, replicas=2, also=1).run() as running:
        place = running.client.call("door.only_listen", ANY)
        stopped = int(worker_of(running, "door[1]")["pid"])
        os.kill(stopped, signal.SIGSTOP)
        try:
            assert {answer(ask(place))[0] for _ in range(30)} == {"door[0]"}
        finally:
            os.kill(stopped, signal.SIGCONT)


def test_a_replica_that_there_is_not_has_no_socket() -> None:
    with pytest.raises(StartError, match=r"asked for the socket of replica 2; there are 2, from 0"):
        graph_with(address=ANY, replicas=2, also=2).run().__enter__()


@pytest.mark.parametrize("address", [ANY, "tcp://[::1]:0", "tcp://localhost:0"])
def test_replicas_share_one_port(address: str) -> None:
    with graph_with(address=address, replicas=2, routing="round_robin").run() as running:
        places = [running.client.call("door.only_listen", address)[:2] for _ in range(2)]
        assert places[0] == places[1]
        who = Counter(answer(socket_to(places[0]))[0] for _ in range(60))
        assert set(who) == {"door[0]", "door[1]"}
        killed = kill(running, "door[1]")
        asked = [socket_to(places[0]) for _ in range(60)]
        successor(running, "door[1]", killed)
        assert set(Counter(answer(each)[0] for each in asked)) == {"door[0]", "door[1]"}


def socket_to(place: list[Any]) -> socket.socket:
    connection = socket.create_connection((place[0], place[1]))
    connection.sendall(b"?")
    return connection


def test_replicas_share_the_one_socket_of_a_path(tmp_path: Path) -> None:
    path = str(tmp_path / "door")
    with graph_with(address=f"unix://{path}", replicas=2).run() as running:
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
        assert {answer(ask(path))[0] for _ in range(40)} <= {"door[0]", "door[1]"}
        assert f"unix://{path} is held for door[0], door[1]\n" in invoke("leases", running.name).stdout
        for each in ("door[0]", "door[1]"):
            os.kill(worker_of(running, each)["pid"], signal.SIGSTOP)
        asked = [ask(path) for _ in range(20)]
        for each in ("door[0]", "door[1]"):
            kill(running, each)
        assert {answer(each)[0] for each in asked} <= {"door[0]", "door[1]"}
    assert not os.path.exists(path)


def listening() -> int:
    """How many descriptors of this process listen."""
    found = 0
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            if stat.S_ISSOCK(os.fstat(int(name)).st_mode):
                with socket.socket(fileno=os.dup(int(name))) as each:
                    found += each.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    return found


def test_a_graph_in_this_process_listens_too(tmp_path: Path) -> None:
    path = str(tmp_path / "door")
    with graph_with(address=f"unix://{path}", replicas=2).run(in_process=True) as running:
        place = running.client.call("door.open", ANY)
        connections = [ask(place), ask(path)]
        while len(select.select(connections, [], [], 0)[0]) < len(connections):
            running.wait(0.02)
        assert {answer(each)[1] for each in connections} == {str(os.getpid())}
        assert listening() > 0
        child = os.fork()
        if not child:
            os._exit(listening())
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert not os.path.exists(path)
    with pytest.raises(ConnectionRefusedError):
        ask(place)


def test_the_port_is_free_after_the_graph_also_where_it_is_killed() -> None:
    for end in ("stop", "kill"):
        with graph_with(address=ANY).run() as running:
            place = running.client.call("door.only_listen", ANY)
            assert answer(ask(place))
            getattr(running, end)()
        with pytest.raises(ConnectionRefusedError):
            ask(place)


def test_an_actor_that_is_not_started_again_keeps_nobody_waiting() -> None:
    with graph_with(address=ANY, replicas=2, restart="temporary").run() as running:
        place = running.client.call("door.only_listen", ANY)
        kill(running, "door[1]")
        wait_until(lambda: worker_of(running, "door[1]")["state"] == "stopped")
        assert {answer(ask(place))[0] for _ in range(40)} == {"door[0]"}


def test_errors_name_address_and_remedy(tmp_path: Path) -> None:
    with graph_with().run() as running, socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]

        def refused(address: str) -> str:
            with pytest.raises(StartError) as raised:
                running.client.call("door.only_listen", address)
            return str(raised.value)

        said = refused(f"tcp://127.0.0.1:{port}")
        assert said.startswith(f"door cannot listen on tcp://127.0.0.1:{port}: the address is in use; end the program")
        assert f"`ss -ltnp 'sport = :{port}'` shows it" in said
        assert "tcp://192.0.2.1:0: Cannot assign requested address; give an address" in refused("tcp://192.0.2.1:0")
        assert "the host is unknown" in refused("tcp://no.such.host.invalid:1")
        assert "there is no folder" in refused(f"unix://{tmp_path}/none/door")
        (tmp_path / "file").write_text("")
        assert "somebody listens there, or the file is no socket" in refused(f"unix://{tmp_path}/file")
        assert "no such descriptor was handed to the graph; give fd:// the number" in refused("fd://7")
        for wrong in (
            "127.0.0.1:80",
            "tcp://a\0b:1",
            "tcp://:80",
            "tcp://a:b",
            "tcp://a:65536",
            "unix://relative",
            "",
            "fd://x",
        ):
            assert f"nobody can listen at {wrong!r}; give tcp://127.0.0.1:8443, " in refused(wrong)
        assert "has 120 bytes" in refused("unix:///" + "x" * 119)
        assert "printable" in refused("unix:///a\0b")
        assert running.client.call("door.only_listen", ANY)


def test_two_graphs_cannot_share_a_port_by_accident() -> None:
    with graph_with(address=ANY, replicas=2).run() as running:
        port = running.client.call("door.only_listen", ANY)[1]
        with pytest.raises(StartError, match="the address is in use"):
            graph_with(address=f"tcp://127.0.0.1:{port}", replicas=2).run(name="second").__enter__()


def test_sockets_are_bounded() -> None:
    with graph_with().run() as running:
        addresses = [f"tcp://127.0.0.{n}:0" for n in range(1, MOST_SOCKETS + 1)]
        assert running.client.call("door.listen_at", addresses) == MOST_SOCKETS
        with pytest.raises(StartError, match=r"door cannot listen on tcp://127\.0\.1\.1:0: it has 64 sockets"):
            running.client.call("door.only_listen", "tcp://127.0.1.1:0")
        assert running.client.call("door.only_listen", addresses[0])


# -- the book --------------------------------------------------------------------------------------------------------


def test_the_path_of_a_dead_graph_is_replaced_that_of_a_living_one_is_not(tmp_path: Path) -> None:
    path = str(tmp_path / "door")
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(path)
    dead.listen()
    book, address = Listeners(), f"unix://{path}"
    with pytest.raises(StartError, match=re.escape(f"door cannot listen on {address}: somebody listens there")):
        book.open("door", 1, "door", address)
    dead.close()
    book.open("door", 1, "door", address)
    book.close()
    assert not os.path.exists(path)


def test_a_path_that_somebody_has_removed_is_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "door"
    book = Listeners()
    first = book.open("door", 1, "door", f"unix://{path}")
    assert book.open("door", 1, "door", f"unix://{path}") == first
    path.unlink()
    book.open("door", 1, "door", f"unix://{path}")
    assert path.is_socket()
    path.unlink()
    path.write_text("somebody else's")
    book.close()
    assert path.read_text() == "somebody else's"


def test_a_socket_that_the_graph_was_started_with_is_adopted(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as given, open(tmp_path / "file", "w") as file:
        book = Listeners({given.fileno(), file.fileno()})
        descriptor = book.open("door", 2, "door[0]", f"fd://{given.fileno()}")
        assert book.open("door", 2, "door[1]", f"fd://{given.fileno()}") == descriptor != given.fileno()
        with pytest.raises(StartError, match="it is no socket"):
            book.open("door", 1, "door", f"fd://{file.fileno()}")
        book.close()
        assert given.getsockname()


ACTIVATED = """
import os, socket, sys
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
os.dup2(listener.fileno(), 3)
os.set_inheritable(3, True)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1")
os.execv(sys.executable, [sys.executable, "-c", sys.argv[1]])
"""
GRAPH = """
from kept_stage import Door
from slabwire import Graph
graph = Graph("activated")
graph.add(Door, address="fd://3")
with graph.run() as running:
    print("ready", flush=True)
    input()
"""


def test_a_graph_of_an_activated_service_serves_the_sockets_it_was_given() -> None:
    words = [sys.executable, "-c", ACTIVATED, GRAPH]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as service:
        assert service.stdin is not None
        assert service.stdout is not None
        port = int(service.stdout.readline())
        asked = ask(["127.0.0.1", port])  # before there is any graph
        assert answer(asked)[0] == "door"
        service.communicate("\n")
    assert service.returncode == 0


def test_who_leaves_gives_back_what_only_it_had(tmp_path: Path) -> None:
    book = Listeners()
    for instance in ("door[0]", "door[1]"):
        for address in (ANY, f"unix://{tmp_path}/door"):
            book.open("door", 2, instance, address)
    (port,) = {each.address.port for each in book if not isinstance(each.address, UnixAddress)}  # type: ignore[union-attr]
    assert port
    book.leave(["door[0]"])
    assert [sorted(each.users) for each in book] == [["door[1]"], ["door[1]"]]
    book.leave(["door[1]"])
    assert list(book) == []
    assert not os.path.exists(tmp_path / "door")


@pytest.mark.parametrize(
    ("address", "number", "said"),
    [
        ("tcp://[::1]:443", errno.EACCES, "tcp://[::1]:443: ports below 1024 are the system's; choose another port"),
        ("unix:///run/door", errno.EACCES, "Permission denied; choose a path in a folder that this user may write to"),
    ],
)
def test_what_the_system_does_not_allow_is_explained(
    address: str, number: int, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(socket.socket, "bind", refuse)
    with pytest.raises(StartError, match=re.escape(said)):
        Listeners().open("door", 1, "door", address)


@pytest.mark.parametrize("address", ["tcp://localhost:0", "tcp://[a:b]:0", "tcp://1.2.3:0", f"tcp://{'x' * 300}:0"])
def test_the_supervisor_resolves_no_names(address: str) -> None:
    with pytest.raises(StartError, match=r"does not appear to be an IPv4 or IPv6 address; give tcp://127\.0\.0\.1"):
        Listeners().open("door", 1, "door", address)


def test_addresses_survive_being_written() -> None:
    for text in ("tcp://127.0.0.1:80", "tcp://[::1]:0", "tcp://name.of.host:65535", "unix:///run/a b", "fd://3"):
        assert str(read_address(text)) == text
    assert str(numeric(read_address("tcp://127.1:5"))) == "tcp://127.0.0.1:5"  # type: ignore[arg-type]
