"""Directories and files for private keys, which nobody else may read."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp

from ....runtime.host.ownership import link_maker
from .certificate import CertificateError


def make_private(directory: Path, remedy: str) -> None:
    """A directory of ours alone, made if it is not there. Raises CertificateError, with the remedy, where it is not
    that; OSError.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    stranger = link_maker((directory.parent, directory))
    if stranger:
        raise CertificateError(
            f"{directory} is to hold a private key, and lies where a link of {stranger} leads: {remedy}"
        )
    status = directory.stat()
    if status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o077:
        raise CertificateError(
            f"{directory} must be a directory of yours that nobody else may enter, since it holds a private key: "
            f"chmod 700 {directory}, or {remedy}"
        )


def replace_file(path: Path, content: bytes, mode: int) -> None:
    """Puts a file in its place whole, on the disk before it has its name. Only one process does so at a time."""
    fresh = path.with_name(".new")
    fresh.unlink(missing_ok=True)
    write_new(fresh, content, mode)
    fresh.replace(path)


def write_new(path: Path, content: bytes, mode: int) -> None:
    """A file that was not there, on the disk; it has its mode before it holds anything. Raises OSError."""
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def appearing(folder: Path) -> Iterator[Path]:
    """A fresh directory of mode 0700 that takes its place when it is complete, so that a kill leaves none half made.

    Raises OSError; also where something is there already: nothing is overwritten.
    """
    fresh = Path(mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        yield fresh
        fresh.rename(folder)  # also over an empty directory
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise
