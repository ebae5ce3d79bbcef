"""A folder for files that are made once and kept: each is there whole or not at all, whatever ends its maker."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from ....runtime.host.ownership import is_own, link_maker, open_own
from .gguf import ModelFileError

Progress = Callable[[str], None]

VARIABLE = "SLABWIRE_CACHE_DIR"
_UNFINISHED = ".unfinished"


def cache_directory() -> Path:
    """$SLABWIRE_CACHE_DIR, else $XDG_CACHE_HOME/slabwire, else ~/.cache/slabwire."""
    named = os.environ.get(VARIABLE)
    if named:
        return Path(named).absolute()
    shared = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if shared.is_absolute():  # a relative path is ignored (XDG Base Directory Specification)
        return shared / "slabwire"
    try:
        return Path.home() / ".cache" / "slabwire"
    except RuntimeError:
        raise ModelFileError(f"there is no home folder to keep converted models in; set {VARIABLE}") from None


class CacheFolder:
    """The folder `name` below the cache directory; what lies in it are files and folders that were published whole.

    Looking needs nothing; making needs the lock, which the kernel takes back from a process that dies.
    Errors are `ModelFileError`, with the folder and the variable that chooses another.
    """

    def __init__(self, name: str, cache: Path | None = None) -> None:
        self.path = (cache or cache_directory()) / name

    @contextlib.contextmanager
    def exclusively(self, wanted: str, progress: Progress) -> Iterator[None]:
        """While one process makes something, others wait. What a killed one left unfinished is removed.

        `progress` is told of a wait, as one for `wanted`.
        """
        with self._errors():
            self._make_private()
            descriptor = open_own(self.path / ".lock", os.O_RDWR | os.O_CREAT)
        try:
            with self._errors():
                _lock(descriptor, f"waiting for {wanted}: another process makes it", progress)
                for left in self.path.glob(f"*{_UNFINISHED}"):
                    _remove(left)
            yield
        finally:
            os.close(descriptor)

    @contextlib.contextmanager
    def making(self, name: str) -> Iterator[Path]:
        """A new folder; when the block ends well, it is published as `name`, in place of what had that name.

        Holders of the lock alone may call it. Errors of the operating system in the block are taken for the folder's.
        """
        unfinished = self.path / f"{name}{_UNFINISHED}"
        try:
            with self._errors():
                unfinished.mkdir(mode=0o700)
                yield unfinished
                for file in unfinished.iterdir():
                    _flush(file)
                _remove(self.path / name)
                unfinished.rename(self.path / name)
                _flush(self.path)
        finally:
            with contextlib.suppress(OSError):
                _remove(unfinished)

    def _make_private(self) -> None:
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = self.path.stat()
        # A model is loaded from here: nobody else may put one there.
        if (
            link_maker((self.path.parent, self.path))
            or not is_own(status.st_uid)
            or stat.S_IMODE(status.st_mode) & 0o022
        ):
            raise ModelFileError(
                f"others may write into the cache folder {self.path}: chmod 700 {self.path}, "
                f"or set {VARIABLE} to a folder of yours"
            )

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise ModelFileError(
                f"the cache folder {self.path} cannot be used: {error.strerror or error}; "
                f"make room there, or set {VARIABLE} to a folder with room that can be written"
            ) from error


def _lock(descriptor: int, waiting: str, progress: Progress) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        progress(waiting)
        fcntl.flock(descriptor, fcntl.LOCK_EX)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    """Onto the disk: after a power cut a published name must not stand for empty files."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
