"""What users install: the source distribution and the wheel hold what they should, and the wheel works by itself."""

from __future__ import annotations

import email
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import NamedTuple

import pytest
from packaging.metadata import Metadata
from packaging.requirements import Requirement

import slabwire

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("actors", "bench", "cli", "runtime", "shm")
# Benches that need tests and examples; `slabwire bench` says so where they are not.
CHECKOUT_ONLY = ("bench/fidelity/", "bench/pages/")
# What the source distribution has beside the code: what builds the wheel, and what setuptools adds by itself.
BESIDE_CODE = {"CHANGELOG.md", "LICENSE", "MANIFEST.in", "PKG-INFO", "README.md", "pyproject.toml", "setup.cfg"}
BUILD = "import sys; from setuptools.build_meta import build_sdist; build_sdist(sys.argv[1])"
PIP = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")
# All commands can be imported with what the package requires.
LOAD_COMMANDS = """
from importlib.metadata import entry_points
print(*(each.name for each in entry_points(group="slabwire.commands") if each.load()))
"""


class Installed(NamedTuple):
    """The wheel in an environment of its own, with folders of its own for what programs leave behind:
    `e` the environment, `h` the home, `t` temporary files, `w` where programs run.
    """

    folder: Path

    @property
    def python(self) -> Path:
        return self.folder / "e" / "bin" / "python"

    def run(self, *command: str, status: int = 0, within: str = "w") -> str:
        """What a program of the environment prints."""
        words = (str(self.python.parent / command[0]), *command[1:])
        done = subprocess.run(
            words, cwd=self.folder / within, env=self.environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == status, f"{command}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    @property
    def environment(self) -> dict[str, str]:
        """Nothing of the test run's own gets in."""
        kept = {name: each for name, each in os.environ.items() if not name.startswith(("SLABWIRE_", "PYTHON", "XDG_"))}
        return {**kept, "HOME": str(self.folder / "h"), "TMPDIR": str(self.folder / "t")}


@pytest.fixture(scope="module")
def tree() -> Iterator[Path]:
    """The files of the repository and nothing else: no environment, no links, nothing that an earlier build left."""
    listing = ("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    names = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    with TemporaryDirectory() as folder:
        for name in (each for each in names if each and (ROOT / each).is_file()):
            (Path(folder) / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, Path(folder) / name)
        yield Path(folder)


@pytest.fixture(scope="module")
def sdist(tree: Path) -> Iterator[Path]:
    with TemporaryDirectory() as folder:
        succeed(sys.executable, "-c", BUILD, folder, within=tree)
        yield only(folder, "*.tar.gz")


@pytest.fixture(scope="module")
def wheel(sdist: Path) -> Iterator[Path]:
    """Built from the source distribution alone."""
    with TemporaryDirectory() as folder:
        succeed(*PIP, "wheel", "--no-cache-dir", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, str(sdist))
        yield only(folder, "*.whl")


@pytest.fixture(scope="module")
def installed(wheel: Path) -> Iterator[Installed]:
    with environment(sys.executable, wheel) as made:
        yield made


@contextmanager
def environment(interpreter: str, wheel: Path) -> Iterator[Installed]:
    """A new environment with the wheel, what the wheel requires, and the pytest that new projects are tested with."""
    with TemporaryDirectory(prefix="s") as folder:  # short, for the paths of sockets
        made = Installed(Path(folder))
        for each in "htw":
            (made.folder / each).mkdir()
        succeed(interpreter, "-m", "venv", "--without-pip", str(made.folder / "e"))
        done = ran(*PIP, "--python", str(made.python), "install", "pytest")
        if done.returncode:
            pytest.skip(f"the index of packages cannot be reached: {done.stderr.strip().splitlines()[-1]}")
        succeed(*PIP, "--python", str(made.python), "install", str(wheel))
        yield made


def ran(*command: str, within: Path = ROOT) -> subprocess.CompletedProcess[str]:
    clean = {name: each for name, each in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(command, cwd=within, env=clean, capture_output=True, text=True, check=False)


def succeed(*command: str, within: Path = ROOT) -> None:
    done = ran(*command, within=within)
    assert done.returncode == 0, (done.stdout + done.stderr)[-2000:]


def only(folder: str, pattern: str) -> Path:
    (found,) = Path(folder).glob(pattern)
    return found


def packaged(tree: Path) -> set[str]:
    """The files of the repository that belong into the wheel, all of them code or data of a package."""
    inside = (path for folder in FOLDERS for path in (tree / folder).rglob("*") if path.is_file())
    names = {str(path.relative_to(tree)) for path in inside}
    return {each for each in names if not each.startswith(CHECKOUT_ONLY)} | {"__init__.py", "__main__.py", "py.typed"}


def test_the_source_distribution_has_the_package_and_no_tests(tree: Path, sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        paths = [PurePosixPath(each.name) for each in archive.getmembers() if each.isfile()]
    names = {str(PurePosixPath(*path.parts[1:])) for path in paths if "slabwire.egg-info" not in path.parts}
    assert names == packaged(tree) | BESIDE_CODE


def test_the_wheel_has_every_file_of_the_package(tree: Path, wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {each.removeprefix("slabwire/") for each in archive.namelist() if ".dist-info/" not in each}
    assert names == packaged(tree)


def test_its_metadata_are_valid(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (each for each in archive.namelist() if each.endswith(".dist-info/METADATA"))
        content = archive.read(name)
    metadata = Metadata.from_email(content, validate=True)
    assert (metadata.name, str(metadata.version)) == ("slabwire", slabwire.__version__)
    assert metadata.description_content_type == "text/markdown"
    assert str(email.message_from_bytes(content).get_payload()).startswith("# Slabwire")
    base = {each.name for each in metadata.requires_dist or [] if not _is_extra(each)}
    assert base == {"numpy", "pyzmq", "msgpack", "click", "rich", "cloudpickle"}


def _is_extra(requirement: Requirement) -> bool:
    return "extra" in str(requirement.marker or "")


def test_the_command_line_works_with_what_the_package_requires(installed: Installed) -> None:
    assert installed.run("slabwire", "--version") == f"slabwire {slabwire.__version__}\n"
    assert "A graph's file" in installed.run("slabwire", "--help")
    assert {"new", "run", "doctor", "bench"} <= set(installed.run("python", "-c", LOAD_COMMANDS).split())
    assert "slabwire can run here" in installed.run("slabwire", "doctor")


def test_a_new_project_passes_its_test(installed: Installed) -> None:
    passes_in(installed)


def passes_in(installed: Installed) -> None:
    installed.run("slabwire", "new", "eyes")
    assert "valid: " in installed.run("slabwire", "validate", "eyes.py", within="w/eyes")
    assert "1 passed" in installed.run("python", "-m", "pytest", "-q", within="w/eyes")
    left = [each.name for each in (installed.folder / "t").rglob("*") if not each.is_dir()]
    assert left == [".lock"]  # of the folder of run directories, which stays


@pytest.mark.parametrize("bench", ["fidelity", "read-page"])
def test_a_bench_that_needs_the_checkout_says_so(bench: str, installed: Installed) -> None:
    said = installed.run("slabwire", "bench", bench, status=1)
    assert f"bench '{bench}' is not available: it needs the tests and examples of the repository" in said
    assert "in a checkout" in said
    assert list((installed.folder / "h").iterdir()) == []


@pytest.mark.long
@pytest.mark.parametrize("minor", [11, 12, 13, 14])
def test_it_works_with_every_python_that_is_here(minor: int, wheel: Path) -> None:
    name = f"python3.{minor}"
    if subprocess.run(("/bin/sh", "-c", f"{name} -c 'import venv'"), capture_output=True, check=False).returncode:
        pytest.skip(f"there is no {name} on this machine")
    with environment(name, wheel) as installed:
        assert f"3.{minor}." in installed.run("python", "--version")
        passes_in(installed)
