"""Where a running graph keeps what must have a name: sockets, logs and a locked pid file."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ..errors import SlabwireError, StartError
from .ownership import locked, open_own, require_own_socket, try_lock, what_is_wrong_with

# How the pid file of a graph begins, so that no directory of somebody else's is ever taken for one.
_MARK = "slabwire supervisor "
# Of the path of a Unix socket (sun_path has 108 bytes with its terminating zero).
LONGEST_SOCKET_PATH = 107
# A lock is held for as long as it takes to look into, make or remove a directory; its holder may have been stopped.
LOCK_WITHIN_S = 5.0
_ELSEWHERE = "set SLABWIRE_RUN_DIR to another directory, where your graphs are started, too"


class UnusableDirectory(SlabwireError):
    """A directory of all graphs that is not to be trusted, or in which nothing can be locked."""

    code = "run_directory"


def base_directory() -> Path:
    """$SLABWIRE_RUN_DIR, else $XDG_RUNTIME_DIR/slabwire, else slabwire-<uid> among the temporary files.

    XDG_RUNTIME_DIR counts where it is this user's: `su` and `sudo` hand on that of the user before.
    """
    named = os.environ.get("SLABWIRE_RUN_DIR")
    if named:
        return Path(named)
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime and os.path.isdir(runtime) and os.stat(runtime).st_uid == os.geteuid() and os.access(runtime, os.W_OK):
        return Path(runtime) / "slabwire"
    return Path(tempfile.gettempdir()) / f"slabwire-{os.geteuid()}"


def graph_directory(name: str) -> Path:
    """The directory of the graph `name`, whether it runs or not."""
    return base_directory() / name


def is_private(directory: Path) -> bool:
    """Whether there is such a directory. Raises UnusableDirectory for one that is not this user's alone."""
    try:
        status = directory.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise UnusableDirectory(f"cannot look into {directory}: {error.strerror}; {_ELSEWHERE}") from None
    wrong = what_is_wrong_with(directory, status)
    if wrong:
        raise UnusableDirectory(f"{wrong}, or {_ELSEWHERE}")
    return True


def list_graphs() -> list[str]:
    """The names of the graphs that run. Removes what a killed supervisor left behind, and nothing else.

    Raises UnusableDirectory.
    """
    base = base_directory()
    if not is_private(base):
        return []
    with _exclusively(base):
        found = [each for each in sorted(base.iterdir()) if _is_ours(each)]
        running = [each.name for each in found if _is_locked(each)]
        for each in found:
            if each.name not in running:
                shutil.rmtree(each, ignore_errors=True)
    return running


def is_running(directory: Path) -> bool:
    """Whether a supervisor holds the lock of that directory. Raises UnusableDirectory."""
    if not (is_private(directory.parent) and is_private(directory) and (directory / "pid").exists()):
        return False
    with _exclusively(directory.parent):
        return _is_locked(directory)


def own_socket(graph: str, name: str) -> Path:
    """The socket `control` or `local` of a running graph. Raises UnusableDirectory; Disconnected for a foreign one."""
    directory = graph_directory(graph)
    if is_private(directory.parent) and is_private(directory):
        require_own_socket(directory / name)
    return directory / name


@contextlib.contextmanager
def _exclusively(base: Path) -> Iterator[None]:
    """While one process looks whether a directory is locked, or locks it, no other does: a look takes the lock."""
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(locked(base / ".lock", LOCK_WITHIN_S))
        except TimeoutError as error:
            raise UnusableDirectory(f"{error.strerror}; end it, or let it go on (kill -CONT)") from None
        except OSError as error:
            raise UnusableDirectory(
                f"cannot write to {base}, where graphs keep their sockets: {error.strerror}; make room or get "
                f"permission there, or {_ELSEWHERE}"
            ) from None
        yield


def _is_ours(directory: Path) -> bool:
    """Whether it is the run directory of a graph of this user: private, with a pid file."""
    try:
        if what_is_wrong_with(directory, directory.lstat()):
            return False
        with open(open_own(directory / "pid", os.O_RDONLY)) as pid:
            return pid.read(len(_MARK)) == _MARK
    except (OSError, ValueError):
        return False


def _is_locked(directory: Path) -> bool:
    try:
        descriptor = open_own(directory / "pid", os.O_RDWR)
    except OSError:
        return False
    with open(descriptor, "rb", buffering=0):
        return not try_lock(descriptor)


def require_free(name: str) -> None:
    """Raises StartError if a graph of that name runs. Another may take the name right after."""
    if name in list_graphs():
        pid = "that has just ended"
        with contextlib.suppress(OSError):
            pid = (graph_directory(name) / "pid").read_text().strip().removeprefix(_MARK)
        raise _taken(name, pid)


def _taken(name: str, pid: str) -> StartError:
    return StartError(
        f"a graph named {name!r} is running already (supervisor {pid}); stop it with `slabwire stop {name}`, "
        "or run this one under another name"
    )


class RunDirectory:
    """The directory of one running graph, locked while this object lives. Raises StartError if the name is taken."""

    def __init__(self, name: str) -> None:
        self.path = graph_directory(name)
        self.control, self.local = self.path / "control", self.path / "local"
        longest = str(self.control)
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
            self._lock = open_own(self.path / "pid", os.O_RDWR | os.O_CREAT)
            if not try_lock(self._lock):
                pid = os.read(self._lock, 40).decode().strip().removeprefix(_MARK)
                os.close(self._lock)
                raise _taken(name, pid)
        os.ftruncate(self._lock, 0)
        os.write(self._lock, f"{_MARK}{os.getpid()}\n".encode())
        (self.path / "logs").mkdir(mode=0o700, exist_ok=True)

    def log(self, name: str) -> Path:
        return self.path / "logs" / f"{name}.log"

    def open_log(self, name: str) -> int:
        """A descriptor that appends to a log, which is made if it is not there."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        return os.open(self.log(name), flags, 0o600)

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
    except FileExistsError:
        status = directory.lstat()
    except OSError as error:
        raise StartError(f"cannot make the directory {directory}: {error.strerror}; set SLABWIRE_RUN_DIR") from None
    wrong = what_is_wrong_with(directory, status)
    if wrong:
        raise StartError(f"{wrong}, or set SLABWIRE_RUN_DIR to another")
