"""How user code travels from the process that defines a graph to its workers, and comes to life there."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import io
import os
import pickle
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

from ..error_text import described, is_installed, name_of, place_of, sendable, traceback_of
from ..errors import GraphError, LoadError
from ..host.sealed_document import pack_document, unpack_document
from ..spec import ActorSpec, CodeSpec
from .actor import RESERVED, Actor, FunctionActor
from .code_fit import require_fit
from .sources import is_source, source_spec

_files: dict[str, str] = {}  # modules that `load_file` made: name to absolute path
_loading = 0


def is_loading() -> bool:
    """Whether a planner or a worker is importing user code now: nothing may be run then."""
    return _loading > 0


@contextmanager
def _while_loading() -> Iterator[None]:
    global _loading
    _loading += 1
    try:
        yield
    finally:
        _loading -= 1


def code_spec(code: Callable[..., Any], arguments: dict[str, Any], owner: str = "") -> CodeSpec:
    """How `code`, a class or function, and its constructor's arguments reach a worker.

    Raises GraphError naming the actor `owner` and the global or argument that cannot travel.
    """
    owner = owner or code.__qualname__
    kind, origin, search_path = _origin(code)
    pickled = _pickled(code, owner) if kind == "value" else b""
    is_plain = _is_plain(arguments)
    from_script = kind != "value" and code.__module__ == "__main__"
    packed = pack_document(arguments) if is_plain else _pickled(arguments, owner, from_script=from_script)
    return CodeSpec(kind, origin, code.__qualname__, search_path, pickled, packed, not is_plain)


def _origin(code: Any) -> tuple[Any, str, tuple[str, ...]]:
    module = sys.modules.get(code.__module__)
    if module is None or "<" in code.__qualname__ or _attribute(module, code.__qualname__) is not code:
        return "value", code.__module__, ()
    if code.__module__ in _files:
        path = _files[code.__module__]
        return "file", path, (os.path.dirname(path),)
    if code.__module__ != "__main__":
        return _module_origin(module)
    spec = getattr(module, "__spec__", None)
    if spec is not None and spec.name != "__main__":  # python -m package.module; else python folder/, or archive.zip
        return "module", spec.name, (os.getcwd(),)
    path = os.path.abspath(getattr(module, "__file__", None) or "")
    return ("file", path, (os.path.dirname(path),)) if is_source(path) else ("value", "__main__", ())


def _module_origin(module: ModuleType) -> tuple[Any, str, tuple[str, ...]]:
    path = os.path.abspath(getattr(module, "__file__", None) or "")
    depth = module.__name__.count(".") + (os.path.basename(path) == "__init__.py")
    root = Path(path).parents[min(depth, len(Path(path).parents) - 1)]
    known = {os.path.abspath(each) for each in sys.path}
    if str(root) in known:
        return "module", module.__name__, () if is_installed(path) else (str(root),)
    if _is_found(module.__name__.partition(".")[0], path):  # an editable install, a builtin
        return "module", module.__name__, ()
    return ("file", path, (os.path.dirname(path),)) if is_source(path) else ("value", module.__name__, ())


def _is_found(top: str, path: str) -> bool:
    """Whether importing the package `top` anew would lead to `path`."""
    finders = (getattr(each, "find_spec", None) for each in sys.meta_path)
    specs = (find(top, None) for find in finders if find is not None)
    spec = next((each for each in specs if each is not None), None)
    if spec is None:
        return False
    if not path:
        return bool(spec.origin == "built-in")
    folders = spec.submodule_search_locations
    return bool(spec.origin == path if folders is None else any(path.startswith(f"{each}{os.sep}") for each in folders))


def _attribute(holder: Any, qualname: str) -> Any:
    for name in qualname.split("."):
        holder = getattr(holder, name, None)
    return holder


def _is_plain(value: Any) -> bool:
    if type(value) is dict:
        return all(type(key) is str and _is_plain(each) for key, each in value.items())
    if type(value) is list:
        return all(map(_is_plain, value))
    if type(value) is int:
        return -(1 << 63) <= value < 1 << 64
    return value is None or type(value) in (bool, float, str, bytes)


def _pickled(value: Any, owner: str, *, from_script: bool = False) -> bytes:
    try:
        return _dumps(value, from_script=from_script)
    except Exception as error:  # what cannot be pickled raises whatever it likes
        what = _offender(value)
        raise GraphError(
            f"actor '{owner}': {what} cannot travel to a worker ({described(error)}); "
            "make it in on_start or in the constructor instead, or move the actor to a module that can be imported"
        ) from error


def _dumps(value: Any, *, from_script: bool = False) -> bytes:
    """Pickles by value what no worker can import. `from_script`: workers import the script that is `__main__` here, and
    find its classes there.
    """
    import cloudpickle

    main = sys.modules["__main__"]

    class Pickler(cloudpickle.Pickler):  # type: ignore[misc]  # cloudpickle has no types
        def reducer_override(self, each: Any) -> Any:
            if from_script and isinstance(each, type) and _attribute(main, each.__qualname__) is each:
                return NotImplemented  # by reference, as pickle itself does it
            return super().reducer_override(each)

    file = io.BytesIO()
    Pickler(file).dump(value)
    return file.getvalue()


def _offender(value: Any) -> str:
    if isinstance(value, dict):
        named = {f"argument '{name}'": each for name, each in value.items()}
    else:
        named = _used_names(value)
    return next((name for name, each in named.items() if not _can_travel(each)), getattr(value, "__qualname__", "it"))


def _used_names(code: Any) -> dict[str, Any]:
    functions = vars(code).values() if isinstance(code, type) else (code,)
    used: dict[str, Any] = {}
    if isinstance(code, type):
        attributes = {name: each for name, each in vars(code).items() if not name.startswith("__")}
        used |= {f"attribute '{name}'": each for name, each in attributes.items() if not callable(each)}
    for function in filter(inspect.isfunction, functions):
        variables = inspect.getclosurevars(function)
        used |= {f"global '{name}'": each for name, each in variables.globals.items()}
        used |= {f"variable '{name}' of the enclosing function": each for name, each in variables.nonlocals.items()}
    return used


def _can_travel(value: Any) -> bool:
    try:
        _dumps(value)
    except Exception:
        return False
    return True


def load(spec: CodeSpec) -> Any:
    """The class or function that `spec` tells of. Raises LoadError with the cause as text."""
    _extend_path(spec.search_path)
    if spec.kind == "value":
        return _guarded(f"{spec.qualname} could not be unpacked", lambda: _loads(spec.pickled, None))
    module = load_file(spec.origin) if spec.kind == "file" else load_module(spec.origin)
    found = _attribute(module, spec.qualname)
    if found is None:
        raise LoadError(
            f"{_file_of(module, spec.origin)} has no '{spec.qualname}' when it is imported; "
            'if it is defined under `if __name__ == "__main__":`, move it out'
        )
    return found


def _file_of(module: ModuleType, origin: str) -> str:
    path = getattr(module, "__file__", None)
    return origin if path is None or path == origin else f"{origin} ({path})"


def load_arguments(spec: CodeSpec) -> dict[str, Any]:
    """The keyword arguments of the constructor; `load` comes first. Raises LoadError."""
    if not spec.arguments_pickled:
        plain: dict[str, Any] = unpack_document(spec.arguments)
        return plain
    main = sys.modules.get(module_name(spec.origin)) if spec.kind == "file" else sys.modules.get(spec.origin)
    what = f"the arguments of {spec.qualname} could not be unpacked"
    unpacked: dict[str, Any] = _guarded(what, lambda: _loads(spec.arguments, main))
    return unpacked


def _loads(pickled: bytes, main: ModuleType | None) -> Any:
    """Unpickles; what says it comes from `__main__` is looked up in `main`, as which the script was imported here."""

    class Unpickler(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            if module == "__main__" and main is not None and hasattr(main, name.partition(".")[0]):
                return _attribute(main, name)
            return super().find_class(module, name)

    with _while_loading():
        return Unpickler(io.BytesIO(pickled)).load()


def construct(spec: ActorSpec) -> Actor:
    """The actor itself, not yet started; a function is wrapped. Raises LoadError naming the actor and the cause."""
    try:
        code = load(spec.code)
        arguments = load_arguments(spec.code)
        _guarded("its ports cannot be read", lambda: require_fit(spec, code))
    except LoadError as error:
        text = str(error) if str(error).startswith(f"actor '{spec.name}'") else f"actor '{spec.name}': {error}"
        raise _with_detail(LoadError(text), error.detail) from error
    return made(spec.name, code, arguments)


def made(name: str, code: Any, arguments: dict[str, Any]) -> Actor:
    """The actor of a class and its constructor's arguments, or of a function. Raises LoadError, as `construct`."""
    if not isinstance(code, type):
        return FunctionActor(code)
    actor: Actor = _guarded(f"actor '{name}': {code.__name__}(...) failed", lambda: code(**arguments))
    taken = sorted(RESERVED & set(vars(actor)) if hasattr(actor, "__dict__") else ())
    if taken:
        raise LoadError(
            f"actor '{name}': its constructor sets self.{taken[0]}, a name that Actor itself uses; choose another"
        )
    return actor


def load_module(name: str) -> ModuleType:
    """Imports a module by name. Raises LoadError with the cause as text."""
    return _imported(name, lambda: importlib.import_module(name))


def load_file(path: str) -> ModuleType:
    """Imports a file under its stem, once. Raises LoadError with the cause as text."""
    path = os.path.abspath(path)
    name = module_name(path)
    if name in _files:
        return sys.modules[name]
    return _imported(path, lambda: _execute_file(name, path))


def module_name(path: str) -> str:
    """The stem; prefixed where a module of that name is there already (`queue.py` must not replace the library's)."""
    path = os.path.abspath(path)
    stem = Path(path).stem
    names = (stem, f"slabwire_file_{stem}", *(f"slabwire_file_{stem}_{number}" for number in range(2, 100)))
    free = (name for name in names if name not in sys.modules and name not in sys.stdlib_module_names)
    return next((name for name in names if _files.get(name) == path), None) or next(free)


def _execute_file(name: str, path: str) -> ModuleType:
    spec = source_spec(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    _files[name] = path
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name], _files[name]
        raise
    return module


def _extend_path(folders: tuple[str, ...]) -> None:
    for folder in reversed(folders):
        if folder not in sys.path:
            sys.path.insert(0, folder)


def _imported(what: str, importer: Callable[[], ModuleType]) -> ModuleType:
    def guarded() -> ModuleType:
        with _while_loading():
            return importer()

    module: ModuleType = _guarded(f"{what} could not be imported", guarded)
    return module


def _guarded(what: str, action: Callable[[], Any]) -> Any:
    try:
        return action()
    except LoadError:
        raise
    except (Exception, SystemExit) as error:  # user code raises what it likes, and an import may call sys.exit
        _fail(what, error)


def _fail(what: str, error: BaseException) -> NoReturn:
    text = f"{what}: {described(error)}"
    if type(error) in (SyntaxError, IndentationError, TabError):
        said = sendable(f"{error.msg} ({error.filename}:{error.lineno})")  # type: ignore[attr-defined]
        text = f"{what}: {name_of(error)}: {said}"
    elif place := place_of(error):
        text = f"{text} ({place})"
    raise _with_detail(LoadError(text), traceback_of(error)) from error


def _with_detail(error: LoadError, detail: str) -> LoadError:
    error.detail = detail
    return error
