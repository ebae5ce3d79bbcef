"""Where a running graph keeps what must have a name: sockets, logs and a locked pid file."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from .errors import SlabwireError, StartError

# How the pid file of a graph begins, so that no directory of somebody else's is ever taken for one.
_MARK = "slabwire supervisor "
# Of the path of a Unix socket (sun_path has 108 bytes with its terminating zero).
LONGEST_SOCKET_PATH = 107


class UnusableDirectory(SlabwireError):
    """A directory of all graphs in which nothing can be locked."""

    code = "run_directory"


def base_directory() -> Path:
    """$SLABWIRE_RUN_DIR, else $XDG_RUNTIME_DIR/slabwire, else slabwire-<uid> among the temporary files."""
    named = os.environ.get("SLABWIRE_RUN_DIR")
    if named:
        return Path(named)
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime and os.access(runtime, os.W_OK):
        return Path(runtime) / "slabwire"
    return Path(tempfile.gettempdir()) / f"slabwire-{os.getuid()}"


def graph_directory(name: str) -> Path:
    """The directory of the graph `name`, whether it runs or not."""
    return base_directory() / name


def list_graphs() -> list[str]:
    """The names of the graphs that run. Removes what a killed supervisor left behind, and nothing else."""
    base = base_directory()
    if not base.is_dir():
        return []
    with _exclusively(base):
        found = [each for each in sorted(base.iterdir()) if _is_ours(each)]
        running = [each.name for each in found if _is_locked(each)]
        for each in found:
            if each.name not in running:
                shutil.rmtree(each, ignore_errors=True)
    return running


def is_running(directory: Path) -> bool:
    """Whether a supervisor holds the lock of that directory."""
    if not (directory / "pid").exists():
        return False
    with _exclusively(directory.parent):
        return _is_locked(directory)


@contextlib.contextmanager
def _exclusively(base: Path) -> Iterator[None]:
    """While one process looks whether a directory is locked, or locks it, no other does: a look takes the lock."""
    try:
        descriptor = os.open(base / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise UnusableDirectory(
            f"cannot write to {base}, where graphs keep their sockets: {error.strerror}; make room or get permission "
            "there, or set SLABWIRE_RUN_DIR to another directory, where your graphs are started, too"
        ) from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _is_ours(directory: Path) -> bool:
    """Whether it is the run directory of a graph of this user: private, with a pid file."""
    try:
        status = directory.lstat()
    except OSError:
        return False
    private = stat.S_ISDIR(status.st_mode) and stat.S_IMODE(status.st_mode) == 0o700
    if not private or status.st_uid != os.getuid():
        return False
    try:
        return (directory / "pid").read_text().startswith(_MARK)
    except (OSError, ValueError):
        return False


def _is_locked(directory: Path) -> bool:
    try:
        descriptor = os.open(directory / "pid", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


class RunDirectory:
    """The directory of one running graph, locked while this object lives. Raises StartError if the name is taken."""

    def __init__(self, name: str) -> None:
        self.path = graph_directory(name)
        longest = str(self.path / "control")
        if len(os.fsencode(longest)) > LONGEST_SOCKET_PATH:
            raise StartError(
                f"the socket path {longest} has over {LONGEST_SOCKET_PATH} bytes; "
                "set SLABWIRE_RUN_DIR to a shorter directory"
            )
        try:
            self._make(name)
        except OSError as error:
            raise StartError(
                f"cannot write to {self.path}: {error.strerror}; make room there, or set SLABWIRE_RUN_DIR"
            ) from None

    def _make(self, name: str) -> None:
        make_private(base_directory())
        with _exclusively(base_directory()):
            if self.path.exists() and _is_ours(self.path) and not _is_locked(self.path):
                shutil.rmtree(self.path, ignore_errors=True)
            make_private(self.path)
            self._lock = os.open(self.path / "pid", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            self._take(name)
        os.ftruncate(self._lock, 0)
        os.write(self._lock, f"{_MARK}{os.getpid()}\n".encode())
        (self.path / "logs").mkdir(mode=0o700, exist_ok=True)

    def _take(self, name: str) -> None:
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.read(self._lock, 40).decode().strip().removeprefix(_MARK)
            os.close(self._lock)
            raise StartError(
                f"a graph named {name!r} is running already (supervisor {pid}); stop it with `slabwire stop {name}`, "
                "or run this one under another name"
            ) from None

    @property
    def control(self) -> Path:
        return self.path / "control"

    @property
    def local(self) -> Path:
        return self.path / "local"

    def log(self, name: str) -> Path:
        return self.path / "logs" / f"{name}.log"

    def remove(self) -> None:
        """While nobody takes the name: else what a successor has made already would go, too."""
        with contextlib.suppress(UnusableDirectory), _exclusively(self.path.parent):
            shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)


def make_private(directory: Path) -> None:
    """Makes a directory of mode 0700. Raises StartError if there is one that is somebody else's or open to others."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = directory.lstat()
    except OSError as error:
        raise StartError(f"cannot make the directory {directory}: {error.strerror}; set SLABWIRE_RUN_DIR") from None
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or stat.S_IMODE(status.st_mode) & 0o077:
        raise StartError(
            f"{directory} must be a directory of yours that nobody else may enter, since it holds sockets: "
            f"chmod 700 {directory}, or set SLABWIRE_RUN_DIR to another"
        )
