"""What is ours: directories, files, sockets and peers are looked at before they are trusted.

Where the system gives no better place, the run directory lies among the temporary files of all users. So somebody else
may have made what has its name, or have put links into it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pwd
import re
import socket
import stat
import struct
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from ..errors import Disconnected

_CREDENTIALS = struct.Struct("3i")  # struct ucred of unix(7): pid, uid, gid
_LOOK_AGAIN_S = 0.01


def is_own(uid: int) -> bool:
    """Whether a user is trusted: we ourselves, and root, who can do everything anyway."""
    return uid in (os.geteuid(), 0)


def what_is_wrong_with(directory: Path, status: os.stat_result) -> str:
    """Why a directory is not ours alone, by its `lstat`, and what to do about it; "" if it is."""
    if stat.S_ISLNK(status.st_mode):
        return f"{directory} is a link, which may lead anywhere: remove it"
    if not stat.S_ISDIR(status.st_mode):
        return f"{directory} is no directory: remove it"
    if status.st_uid != os.geteuid():
        return f"{directory} belongs to {name_of(status.st_uid)}, so nothing in it is trusted: have it removed"
    if stat.S_IMODE(status.st_mode) & 0o077:
        return (
            f"{directory} must be a directory of yours that nobody else may enter, since it holds sockets: "
            f"chmod 700 {directory}"
        )
    return ""


def link_maker(paths: Iterable[Path]) -> str:
    """The user who has made one of these as a link, and so says where it leads, unless we are that; else ""."""
    found = [each.lstat() for each in paths]
    return next((name_of(each.st_uid) for each in found if stat.S_ISLNK(each.st_mode) and not is_own(each.st_uid)), "")


def name_of(uid: int) -> str:
    """A user, for people: by number, and by name where it has one."""
    try:
        return f"user {uid} ({pwd.getpwuid(uid).pw_name})"
    except KeyError:
        return f"user {uid}"


def open_own(path: Path, flags: int, mode: int = 0o600) -> int:
    """A descriptor of a file of ours. Raises OSError; PermissionError for a link, and for what is another user's."""
    descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, mode)  # no pipe holds us up
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) or not is_own(status.st_uid):
        os.close(descriptor)
        raise PermissionError(1, f"it is no plain file of yours, but of {name_of(status.st_uid)}")
    return descriptor


def require_own_socket(path: Path) -> None:
    """Raises Disconnected for a socket that another user has made. One that is not there is for `connect` to name."""
    with contextlib.suppress(FileNotFoundError):
        status = path.lstat()
        if not stat.S_ISSOCK(status.st_mode):
            raise Disconnected(f"{path} is no socket; nothing that is trusted listens there")
        if not is_own(status.st_uid):
            raise Disconnected(f"{path} is the socket of {name_of(status.st_uid)}, who is not trusted")


def peer_uid(connection: socket.socket) -> int:
    """The user at the other end of a Unix socket, as the kernel noted it when the two were connected."""
    found: tuple[int, int, int] = _CREDENTIALS.unpack(
        connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    )
    return found[1]


def require_own_peer(connection: socket.socket, whose: str) -> None:
    """Raises Disconnected where somebody else answers at the other end of a Unix socket."""
    uid = peer_uid(connection)
    if not is_own(uid):
        raise Disconnected(f"{name_of(uid)} answers in the place of {whose}, and is not trusted")


@contextlib.contextmanager
def locked(path: Path, within_s: float) -> Iterator[None]:
    """Holds the lock of a file of ours, which is made if it is not there.

    Raises OSError; TimeoutError, naming who holds it, where it was not given up in time.
    """
    descriptor = open_own(path, os.O_RDWR | os.O_CREAT)
    try:
        until_s = time.monotonic() + within_s
        while not try_lock(descriptor):
            if time.monotonic() > until_s:
                raise TimeoutError(0, f"{_holder(descriptor)} has held the lock {path} for over {within_s:g} s")
            time.sleep(_LOOK_AGAIN_S)
        yield
    finally:
        os.close(descriptor)


def try_lock(descriptor: int) -> bool:
    """Takes the lock of a file until its descriptor is closed. Returns at once: False where somebody else has it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _holder(descriptor: int) -> str:
    """Who holds a lock, as proc(5) tells: of processes in other containers only that there is one."""
    inode = os.fstat(descriptor).st_ino
    with contextlib.suppress(OSError):
        found = re.search(rf"FLOCK +\S+ +\S+ +(\d+) \S+:{inode} ", Path("/proc/locks").read_text())
        if found and found[1] != "0":
            return f"process {found[1]}"
    return "another process"
