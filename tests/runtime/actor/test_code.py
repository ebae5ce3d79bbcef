"""User code reaches another process: by module, by file or by value."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipapp
from pathlib import Path
from typing import Any

import pytest

from slabwire.runtime.actor.actor import Actor, FunctionActor
from slabwire.runtime.actor.user_code import (
    code_spec,
    construct,
    is_loading,
    load,
    load_arguments,
    load_file,
    module_name,
)
from slabwire.runtime.errors import GraphError, LoadError
from slabwire.runtime.spec import ActorSpec, CodeSpec

SCRIPT = """
import sys
from dataclasses import dataclass
from pathlib import Path
import msgpack
import slabwire.runtime.actor.actor as sw
from slabwire.runtime.launch.graph import Graph
import neighbour

@dataclass
class Config:
    size: int

BASE = 10

def shift(n):
    return n + BASE

class Add(sw.Actor):
    def __init__(self, config, where, transform):
        assert isinstance(config, Config), type(config)
        assert isinstance(where, Path)
        self.config, self.transform = config, transform

    def plus(self, n: int) -> int:
        return self.transform(n) + self.config.size

def closure(k):
    def times(n: int) -> int:
        return n * k
    return times

def is_even(n: int) -> bool:
    return n == 0 or is_odd(n - 1)

def is_odd(n: int) -> bool:
    return n != 0 and is_even(n - 1)

graph = Graph("g")
graph.add(Add, config=Config(5), where=Path("/"), transform=shift)
graph.add(neighbour.Neighbour, config=Config(5))
graph.add(closure(3))
graph.add(lambda n: n + BASE, name="lam")
graph.add(is_even)

if __name__ == "__main__":
    sys.stdout.buffer.write(msgpack.packb(graph.validate().to_plain()))
"""

NEIGHBOUR = """
import slabwire.runtime.actor.actor as sw

class Neighbour(sw.Actor):
    def __init__(self, config):
        self.config = config

    def hello(self) -> str:
        return f"hello {self.config.size}"
"""

WORKER = """
import sys, msgpack
from slabwire.runtime.actor.user_code import construct
from slabwire.runtime.actor.actor import handlers_of
from slabwire.runtime.spec import graph_from_plain
spec = graph_from_plain(msgpack.unpackb(sys.stdin.buffer.read()))
values = {"add": 1, "times": 2, "lam": 3, "is_even": 4}
for each in spec.actors:
    (handler,) = handlers_of(construct(each)).values()
    value = values.get(each.name)
    print(each.name, each.code.kind, handler.function(**handler.bind({} if value is None else value, value is None)))
"""


def _run(arguments: list[str], folder: Path, given: bytes = b"") -> bytes:
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder, input=given, stdout=subprocess.PIPE, check=True
    ).stdout


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "script.py").write_text(SCRIPT)
    (tmp_path / "neighbour.py").write_text(NEIGHBOUR)
    return tmp_path


EXPECTED = ["add file 16", "neighbour module hello 5", "times value 6", "lam value 13", "is_even file True"]


def test_a_script_reaches_a_worker_in_another_folder(project: Path) -> None:
    plain = _run(["script.py"], project)
    assert _run(["-c", WORKER], Path("/"), plain).decode().splitlines() == EXPECTED


def test_a_script_run_as_a_module(project: Path) -> None:
    plain = _run(["-m", "script"], project)
    assert _run(["-c", WORKER], project, plain).decode().splitlines()[0] == "add module 16"


def test_code_of_a_prompt_goes_by_value(project: Path) -> None:
    (project / "neighbour.py").write_text(NEIGHBOUR)
    plain = _run(["-c", SCRIPT], project)
    lines = _run(["-c", WORKER], project, plain).decode().splitlines()
    assert lines == [line.replace("file", "value") for line in EXPECTED]


class Stated(Actor):
    def __init__(self, value: Any = None) -> None:
        if isinstance(value, str):
            raise FileNotFoundError(value)
        self.value = value

    def get(self) -> Any:
        return self.value


class Shadowing(Actor):
    def __init__(self) -> None:
        self.loan = 1  # type: ignore[method-assign, assignment]

    def get(self) -> int:
        return 1


def plain_function(n: int) -> int:
    return n


def _spec(code: CodeSpec) -> ActorSpec:
    return ActorSpec("mine", code, ())


def test_a_function_is_wrapped() -> None:
    assert isinstance(construct(_spec(code_spec(plain_function, {}))), FunctionActor)


@pytest.mark.parametrize(
    ("value", "is_pickled"),
    [({"a": [1, 2.5, None, b"x", "y", True]}, False), ((1, 2), True), (Path("/tmp"), True), (1 << 70, True)],
)
def test_arguments_arrive_as_they_were(value: Any, is_pickled: bool) -> None:
    spec = code_spec(Stated, {"value": value})
    assert spec.arguments_pickled is is_pickled
    assert load_arguments(spec) == {"value": value}


def test_what_cannot_travel_is_named() -> None:
    with pytest.raises(GraphError, match="actor 'mine': argument 'value' cannot travel to a worker"):
        code_spec(Stated, {"other": 1, "value": (n for n in "abc")}, "mine")
    frame = sys._getframe()

    def local() -> Any:
        return frame

    with pytest.raises(GraphError, match="actor 'mine': variable 'frame' of the enclosing function cannot travel"):
        code_spec(local, {}, "mine")

    class Keeps(Actor):
        size = 4
        numbers = (n for n in "abc")

        def get(self) -> int:
            return self.size

    with pytest.raises(GraphError, match="actor 'mine': attribute 'numbers' cannot travel to a worker"):
        code_spec(Keeps, {}, "mine")


def test_constructor_that_raises() -> None:
    with pytest.raises(
        LoadError, match=r"actor 'mine': Stated\(...\) failed: FileNotFoundError: model.onnx \(.*test_code.py:\d+\)"
    ):
        construct(_spec(code_spec(Stated, {"value": "model.onnx"})))


def test_constructor_that_takes_a_name_of_actor() -> None:
    with pytest.raises(LoadError, match=r"its constructor sets self\.loan, a name that Actor itself uses"):
        construct(_spec(code_spec(Shadowing, {})))


def test_class_under_the_main_guard_is_not_found(tmp_path: Path) -> None:
    (tmp_path / "guarded.py").write_text("x = 1\n")
    with pytest.raises(LoadError, match="has no 'Hidden' when it is imported; if it is defined under"):
        load(CodeSpec("file", str(tmp_path / "guarded.py"), "Hidden"))


def test_import_that_raises_says_where(tmp_path: Path) -> None:
    path = tmp_path / "breaks.py"
    path.write_text("import os\n\nraise ValueError('no luck')\n")
    with pytest.raises(LoadError) as caught:
        load(CodeSpec("file", str(path), "Any"))
    assert str(caught.value) == f"{path} could not be imported: ValueError: no luck ({path}:3)"
    assert "Traceback" in caught.value.detail
    assert not is_loading()


def test_running_a_graph_while_it_is_imported(tmp_path: Path) -> None:
    path = tmp_path / "unguarded.py"
    path.write_text(
        "from slabwire.runtime.launch.graph import Graph\n"
        "def f(n: int) -> int: ...\ng = Graph('g')\ng.add(f)\ng.run()\n"
    )
    with pytest.raises(LoadError, match=r'put graph.run\(\) under `if __name__ == "__main__":` \(.*unguarded.py:5\)'):
        load(CodeSpec("file", str(path), "f"))


def test_file_named_like_a_module_takes_another_name(tmp_path: Path) -> None:
    path = tmp_path / "queue.py"
    path.write_text("here = True\n")
    module = load_file(str(path))
    try:
        assert module.__name__ == "slabwire_file_queue"
        assert load_file(os.path.relpath(path)) is module
        assert module_name(str(tmp_path / "other" / "queue.py")) == "slabwire_file_queue_2"
    finally:
        del sys.modules[module.__name__]


def test_names_of_files_arguments_and_the_environment_need_not_be_utf8(tmp_path: Path) -> None:
    folder = os.path.join(os.fsencode(tmp_path), b"caf\xe9")
    os.mkdir(folder)
    Path(os.fsdecode(folder), "odd.py").write_text(
        "import os\n"
        "from slabwire import Actor, Graph\n"
        "class Odd(Actor):\n"
        "    def __init__(self, path: str) -> None:\n"
        "        self.path = path\n"
        "    def get(self) -> list:\n"
        "        return [os.environb[b'ODD'], os.fsencode(self.path), os.path.dirname(os.fsencode(__file__))]\n"
        "Odd.get.__doc__ = 'about caf\\udce9'\n"
        "graph = Graph('odd-names')\n"
        "odd = graph.add(Odd, path='caf\\udce9')\n"
        "graph.expose(odd.get)\n"
        "if __name__ == '__main__':\n"
        "    with graph.run() as running:\n"
        "        assert running.status()['state'] == 'ready'\n"
        "        print(running.client.call('odd.get'))\n"
    )
    environment = {**os.environb, b"ODD": b"x\xe9"}
    command = [os.fsencode(sys.executable), os.path.join(folder, b"odd.py")]
    printed = subprocess.run(command, env=environment, capture_output=True, check=True).stdout
    assert printed.decode().strip() == str([b"x\xe9", b"caf\xe9", folder])


APPLICATION = """
from slabwire import Actor, Graph
from parts.inner import inner
from helper import helped

def plain(n: int) -> int:
    return n + 1

class Keeps(Actor):
    def __init__(self, function) -> None:
        self.function = function
    def kept(self, n: int) -> int:
        return self.function(n) + 1
    def raises(self) -> int:
        raise ValueError("no luck")

graph = Graph("application")
keeps = graph.add(Keeps, function=plain)
graph.expose(graph.add(plain), graph.add(helped), graph.add(inner), graph.add(lambda n: n + 5, name="lam"))
graph.expose(keeps.kept, keeps.raises)
if __name__ == "__main__":
    with graph.run() as running:
        answers = [running.client.call(port, 0) for port in running.client.ports[:-1]]
        try:
            running.client.call("keeps.raises")
        except Exception as error:
            print(answers, error)
"""


@pytest.fixture(scope="module")
def applications(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same program as a folder, as archives, by a link, and as a package."""
    home = tmp_path_factory.mktemp("applications")
    app, package = home / "app", home / "package"
    (app / "parts").mkdir(parents=True)
    (app / "__main__.py").write_text(APPLICATION)
    (app / "helper.py").write_text("def helped(n: int) -> int:\n    return n + 3\n")
    (app / "parts" / "__init__.py").touch()
    (app / "parts" / "inner.py").write_text("def inner(n: int) -> int:\n    return n + 4\n")
    for name, compressed in (("app.pyz", False), ("small.zip", True)):
        zipapp.create_archive(app, home / name, compressed=compressed)
    (home / "linked").symlink_to("app.pyz")
    shutil.copytree(app, package)
    inside = APPLICATION.replace("from parts", "from .parts").replace("from helper", "from .helper")
    (package / "__main__.py").write_text(inside)
    (package / "__init__.py").touch()
    return home


@pytest.mark.parametrize(
    "target", [["app"], ["app/__main__.py"], ["app.pyz"], ["small.zip"], ["linked"], ["-m", "package"], ["-P", "app"]]
)
def test_a_program_in_a_folder_or_an_archive(applications: Path, target: list[str]) -> None:
    said = _run(target, applications).decode().strip()
    place = applications / {"-m": "package", "-P": "app"}.get(target[0], target[0].removesuffix("/__main__.py"))
    line = APPLICATION.splitlines().index('        raise ValueError("no luck")') + 1
    assert said == f"[1, 3, 4, 5, 2] keeps: ValueError: no luck ({place}/__main__.py:{line})"


@pytest.mark.parametrize("target", ["./app", "app.pyz", "linked", "app/__main__.py", "package.__main__"])
def test_the_command_takes_what_python_takes(applications: Path, target: str) -> None:
    said = _run(["-m", "slabwire", "validate", target], applications).decode()
    assert said.startswith("application is valid: 5 actors")


def test_a_file_whose_name_is_like_an_option(applications: Path) -> None:
    (applications / "-x.py").write_text((applications / "app" / "helper.py").read_text() + OPTION)
    assert b"option is valid" in _run(["-m", "slabwire", "validate", "--", "-x.py"], applications)


OPTION = """
from slabwire import Graph
graph = Graph("option")
graph.add(helped)
"""
