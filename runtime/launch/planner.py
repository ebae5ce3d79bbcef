"""The short-lived process that imports a user's file and hands over its graph as plain data.

`python -m slabwire.runtime.launch.planner --fd N -- TARGET`; `plan_target` is the parent's side. The supervisor and
the CLI never import user code: whatever it does while it is imported, it does in here.
"""

from __future__ import annotations

import argparse
import difflib
import os
import subprocess
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any

from ..actor.sources import is_source
from ..actor.user_code import load_file, load_module
from ..error_text import LONGEST_TRACEBACK, is_of, place_of, sendable
from ..errors import GraphError, LoadError
from ..host.descriptors import FOR_A_CONNECTION, require_free
from ..host.inherited import put_right
from ..host.sealed_document import pack_document, unpack_document
from ..spec import GraphSpec, graph_from_plain
from ..spelling import did_you_mean
from .graph import Graph


def plan_target(target: str) -> GraphSpec:
    """The validated graph of `path.py`, `path.py:name`, `package.module` or `package.module:name`.

    Raises LoadError where there is no such graph or its code cannot be imported, GraphError where it is not valid;
    `detail` of either holds the traceback. What the user's code prints goes to stderr.
    """
    require_free(FOR_A_CONNECTION, f"importing {target}", LoadError)
    reading, writing = os.pipe()
    command = [sys.executable, "-m", __spec__.name, "--fd", str(writing), "--", target]
    with open(reading, "rb") as answers:
        with open(writing, "wb"):
            process = subprocess.Popen(command, pass_fds=(writing,), stdin=subprocess.DEVNULL)
        with process:
            answer = answers.read()
    return _parsed(target, answer, process.returncode)


def _parsed(target: str, answer: bytes, status: int) -> GraphSpec:
    if not answer:
        raise LoadError(f"{target}: the process that imported it ended with status {status} before it had a graph")
    plain = unpack_document(answer)
    if plain["ok"]:
        return graph_from_plain(plain["spec"])
    error = GraphError(*plain["problems"]) if plain["problems"] else LoadError(plain["error"])
    error.detail = plain["detail"]
    raise error


def find_graph(target: str) -> Graph:
    """Imports what `target` names, into this process. Raises LoadError, or GraphError where the import did."""
    place, _, name = target.partition(":")
    is_file = place.endswith(".py") or os.sep in place or os.path.isfile(place)
    try:
        os.getcwd()
    except FileNotFoundError:
        raise LoadError(
            f"{target}: the folder that this command was started in has been deleted; cd to one that is there"
        ) from None
    module = _file(place) if is_file else _module(place)
    graphs = {key: value for key, value in vars(module).items() if isinstance(value, Graph)}
    if name:
        return _named(target, module, name, graphs)
    if not graphs:
        raise LoadError(f'{place} has no slabwire.Graph at its top level; define one: graph = Graph("name")')
    if len({id(each) for each in graphs.values()}) > 1:
        listed = ", ".join(f"{place}:{key}" for key in graphs)
        raise LoadError(f"{place} has several graphs, so say which: {listed}")
    return next(iter(graphs.values()))


def _named(target: str, module: ModuleType, name: str, graphs: dict[str, Graph]) -> Graph:
    found = getattr(module, name, None)
    if isinstance(found, Graph):
        return found
    listed = ", ".join(graphs) or "none"
    what = "is not there" if found is None else f"is {type(found).__name__}, no slabwire.Graph"
    meant = did_you_mean(name, graphs)
    raise LoadError(f"{target}: '{name}' {what}{meant}; the graphs of this module are: {listed}")


def _file(place: str) -> ModuleType:
    path = Path(place).absolute()
    if path.suffix != ".py" and is_source(str(path / "__main__.py")):  # a folder or an archive, as Python runs them
        path /= "__main__.py"
    elif path.is_dir():
        raise LoadError(f"{place} is a folder; name a .py file in it, or a module, as in package.module:graph")
    elif not path.is_file():
        raise LoadError(f"{place}: no such file{_nearest(path)}")
    elif path.suffix != ".py":
        raise LoadError(f"{place} is not a Python file; name a .py file or a module, as in package.module:graph")
    _stand_in(place, str(path.parent))
    return load_file(str(path))


def _stand_in(target: str, folder: str) -> None:
    """Lets the user's code see argv and path as if it had been started itself."""
    sys.argv[:] = [target]
    if not sys.flags.safe_path:
        del sys.path[0]  # where `-m` has put the current directory
    sys.path.insert(0, folder)


def _module(name: str) -> ModuleType:
    _stand_in(name, os.getcwd())
    try:
        return load_module(name)
    except LoadError as error:
        cause = error.__cause__
        if is_of(cause, ModuleNotFoundError) and cause.name and f"{name}.".startswith(f"{cause.name}."):
            near = _nearest(Path(name.replace(".", os.sep) + ".py").absolute())
            missing = LoadError(f"there is no module '{cause.name}' here or among those installed{near}")
            missing.detail = error.detail
            raise missing from None
        raise


def _nearest(path: Path) -> str:
    """The file that may have been meant: same name elsewhere below, or a similar one in the same folder."""
    folder = path.parent
    if not folder.is_dir():
        known = folder
        while not known.is_dir():
            known = known.parent
        return f"; there is no folder {folder}, only {known}"
    scripts = [each.name for each in folder.glob("*.py")]
    near = difflib.get_close_matches(path.name, scripts, 1, cutoff=0.5)
    elsewhere = sorted(folder.glob(f"*/{path.name}"))
    meant = folder / near[0] if near else next(iter(elsewhere), None)
    return f"; did you mean {os.path.relpath(meant)}?" if meant is not None else ""


def answer_for(target: str) -> dict[str, Any]:
    """What the planner writes: `{"ok": True, "spec"}` or `{"ok": False, "error", "problems", "detail"}`."""
    try:
        return {"ok": True, "spec": find_graph(target).validate().to_plain()}
    except GraphError as error:
        return _refusal(str(error), traceback.format_exc(), list(error.problems))
    except LoadError as error:
        cause = error.__cause__
        if is_of(cause, GraphError):
            return _refusal(str(cause), error.detail, [_placed(each, cause) for each in cause.problems])
        return _refusal(str(error), error.detail or traceback.format_exc(), [])


def _placed(problem: str, error: GraphError) -> str:
    place = place_of(error)
    return f"{place}: {problem}" if place else problem


def _refusal(text: str, detail: str, problems: list[str]) -> dict[str, Any]:
    said = [sendable(each, LONGEST_TRACEBACK) for each in (text, detail, *problems)]
    return {"ok": False, "error": said[0], "detail": said[1], "problems": said[2:]}


def main() -> None:
    """Plans, writes, and leaves without waiting for threads that the user's code may have started."""
    put_right()
    parser = argparse.ArgumentParser(prog="slabwire.runtime.launch.planner")
    parser.add_argument("target")
    parser.add_argument("--fd", type=int, required=True)
    options = parser.parse_args()
    os.set_inheritable(options.fd, False)
    os.dup2(2, 1)
    packed = pack_document(answer_for(options.target))
    with open(options.fd, "wb") as out:
        out.write(packed)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
