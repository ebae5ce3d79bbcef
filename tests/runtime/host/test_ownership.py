"""What another user may have made or may say: the run directory, links, locks, sockets, peers."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

import slabwire
from slabwire import Actor, Graph
from slabwire.actors.ingress.certificates.certificate import CertificateError
from slabwire.actors.ingress.certificates.development import development_certificate
from slabwire.actors.llm.model_file.cache_folder import CacheFolder
from slabwire.actors.llm.model_file.gguf import ModelFileError
from slabwire.runtime.clients.control import Control
from slabwire.runtime.control.verbs import OpenGateway
from slabwire.runtime.host import run_directory
from slabwire.runtime.host.ownership import require_own_peer, require_own_socket
from slabwire.runtime.host.run_directory import RunDirectory, UnusableDirectory, base_directory, is_running, list_graphs
from slabwire.runtime.postmortem.report_store import graphs_with_reports, reports

STRANGER = 54321
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user")


class Echo(Actor):
    def it(self, n: int) -> int:
        return n


def a_graph(name: str) -> Graph:
    graph = Graph(name)
    graph.expose(graph.add(Echo).it)
    return graph


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "run"
    monkeypatch.setenv("SLABWIRE_RUN_DIR", str(path))
    return path


def of_a_stranger(base: Path) -> None:
    base.mkdir(mode=0o700)
    os.chown(base, STRANGER, STRANGER)


def open_to_all(base: Path) -> None:
    base.mkdir()
    base.chmod(0o777)


def a_link(base: Path) -> None:
    (base.parent / "elsewhere").mkdir(mode=0o700)
    base.symlink_to(base.parent / "elsewhere")


def a_link_to_nothing(base: Path) -> None:
    base.symlink_to(base.parent / "nothing")


def a_file(base: Path) -> None:
    base.touch(mode=0o600)


@pytest.mark.parametrize(
    "made", [pytest.param(of_a_stranger, marks=needs_root), open_to_all, a_link, a_link_to_nothing, a_file]
)
def test_a_run_directory_that_is_not_ours_alone(made: Callable[[Path], None], base: Path) -> None:
    made(base)
    uses: list[Callable[[], object]] = [
        list_graphs,
        lambda: slabwire.connect("any"),
        lambda: Control("any"),
        lambda: is_running(base / "any"),
        graphs_with_reports,
        lambda: list(reports("any")),
    ]
    for use in uses:
        with pytest.raises(UnusableDirectory, match=rf"{base}.*SLABWIRE_RUN_DIR"):
            use()
    with pytest.raises(slabwire.StartError, match=rf"{base}.*SLABWIRE_RUN_DIR"):
        RunDirectory("any")
    for words in (["ps"], ["logs", "any"], ["logs", "any", "--crash"], ["stop", "any"], ["top", "any", "--once"]):
        done = subprocess.run([sys.executable, "-m", "slabwire", *words], capture_output=True, text=True)
        assert (done.returncode, str(base) in done.stderr, "Traceback" in done.stderr) == (1, True, False), done
    assert not base.is_dir() or list(base.iterdir()) == []
    assert not (base.parent / "nothing").exists()


def test_a_lock_that_is_a_link_makes_no_file(base: Path) -> None:
    base.mkdir(mode=0o700)
    (base / ".lock").symlink_to(base.parent / "made")
    with pytest.raises(UnusableDirectory, match="cannot write to"):
        list_graphs()
    assert not (base.parent / "made").exists()


def test_a_pid_file_or_a_directory_behind_a_link_is_no_graph(base: Path) -> None:
    with a_graph("real").run():
        (base / "fake").mkdir(mode=0o700)
        (base / "fake" / "pid").symlink_to(base / "real" / "pid")
        (base / "linked").symlink_to(base / "real")
        assert list_graphs() == ["real"]
        assert not is_running(base / "fake")
        with pytest.raises(UnusableDirectory, match="is a link"):
            is_running(base / "linked")


@pytest.mark.parametrize("kind", ["pipe", pytest.param("stranger's file", marks=needs_root)])
def test_what_stands_in_the_place_of_the_lock(kind: str, base: Path) -> None:
    base.mkdir(mode=0o700)
    if kind == "pipe":
        os.mkfifo(base / ".lock")  # to open it would wait for ever
    else:
        (base / ".lock").touch()
        os.chown(base / ".lock", STRANGER, STRANGER)
    with pytest.raises(UnusableDirectory, match="no plain file of yours"):
        list_graphs()


def test_a_lock_that_is_not_given_up(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_directory, "LOCK_WITHIN_S", 0.2)
    base.mkdir(mode=0o700)
    holder = os.open(base / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(holder, fcntl.LOCK_EX)
    try:
        with pytest.raises(UnusableDirectory, match=r"has held the lock .*\.lock for over 0\.2 s; end it"):
            list_graphs()
    finally:
        os.close(holder)
    assert list_graphs() == []


@pytest.fixture
def beside(tmp_path: Path) -> Iterator[Path]:
    """A directory that all users may enter."""
    closed = [each for each in (tmp_path, *tmp_path.parents) if not each.stat().st_mode & 1]
    for each in closed:
        each.chmod(0o711)
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    yield tmp_path / "open"
    for each in closed:
        each.chmod(0o700)


def as_stranger(act: Callable[[], bool]) -> bool:
    """What `act` gives in a process of another user."""
    pid = os.fork()
    if not pid:
        status = 2
        try:
            signal.alarm(20)
            os.setgid(STRANGER)
            os.setuid(STRANGER)
            status = int(act())
        finally:
            os._exit(status)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) in (0, 1)
    return os.waitstatus_to_exitcode(status) == 1


@needs_root
def test_a_stranger_who_listens_is_not_believed(beside: Path) -> None:
    path, (near, far) = beside / "local", os.pipe()
    pid = os.fork()
    if not pid:
        try:
            signal.alarm(60)
            os.setuid(STRANGER)
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as door:
                door.bind(str(path))
                door.listen()
                os.write(far, b"1")
                signal.pause()
        finally:
            os._exit(2)
    try:
        os.read(near, 1)
        with pytest.raises(slabwire.Disconnected, match=f"socket of user {STRANGER}, who is not trusted"):
            require_own_socket(path)
        with pytest.raises(slabwire.Disconnected, match=f"socket of user {STRANGER}, who is not trusted"):
            slabwire.connect(f"ipc://{path}", wait_s=5)
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
            client.connect(str(path))
            with pytest.raises(slabwire.Disconnected, match=f"user {STRANGER} answers in the place of graph 'x'"):
                require_own_peer(client, "graph 'x'")
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(near)
        os.close(far)


@needs_root
def test_a_stranger_is_not_heard_where_he_gets_in(beside: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody has opened the directories and sockets of a running graph to all."""
    base = beside / "run"
    monkeypatch.setenv("SLABWIRE_RUN_DIR", str(base))
    with a_graph("watched").run() as running, Control("watched") as control:
        control.request(OpenGateway())
        directory = base / "watched"
        for path in (base, directory, *directory.iterdir()):
            path.chmod(0o777)

        def hears(name: str, kind: int) -> bool:
            """Whether the other side says anything: ZeroMQ its greeting, the reception what it hands over."""
            with socket.socket(socket.AF_UNIX, kind) as client:
                client.settimeout(5.0)
                client.connect(str(directory / name))
                try:
                    client.send(b"\xff")
                    return bool(client.recv(64))
                except ConnectionError:
                    return False

        for name in ("control", "gateway"):
            assert hears(name, socket.SOCK_STREAM)  # root is heard
            assert not as_stranger(partial(hears, name, socket.SOCK_STREAM))
        assert not as_stranger(partial(hears, "local", socket.SOCK_SEQPACKET))
        for path in (directory, base):
            path.chmod(0o700)
        assert running.client.call("echo.it", 3) == 3


@needs_root
def test_the_runtime_directory_of_another_user_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As `su` leaves it."""
    monkeypatch.delenv("SLABWIRE_RUN_DIR", raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert base_directory() == tmp_path / "slabwire"
    os.chown(tmp_path, STRANGER, STRANGER)
    assert base_directory().name == f"slabwire-{os.geteuid()}"
    os.chown(tmp_path, os.geteuid(), os.getegid())


@needs_root
@pytest.mark.parametrize("linked", ["state", "tls"])
def test_keys_and_models_do_not_lie_where_a_strangers_link_leads(linked: str, tmp_path: Path) -> None:
    ours = tmp_path / "ours"
    ours.mkdir(mode=0o700)
    state = tmp_path / "state"
    link = state if linked == "state" else state / "tls"
    link.parent.mkdir(mode=0o700, exist_ok=True)
    link.symlink_to(ours)
    os.chown(link, STRANGER, STRANGER, follow_symlinks=False)
    with pytest.raises(CertificateError, match=f"a link of user {STRANGER} leads: set SLABWIRE_STATE_DIR"):
        development_certificate(directory=state / "tls")
    with pytest.raises(ModelFileError, match="SLABWIRE_CACHE_DIR"), CacheFolder("tls", state).exclusively("it", print):
        pass
    assert not [each for each in ours.rglob("*") if each.is_file()]
