"""What an exception says, as text that can travel: bounded, in valid UTF-8, and had without raising anything.

Exceptions are their authors' code, run when something has gone wrong already: a text may hold file names that are no
UTF-8, may have 100 MB, and any method or property may raise. None of that may keep an answer from its caller.
"""

from __future__ import annotations

import os
import sysconfig
import traceback
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, TypeGuard, TypeVar

E = TypeVar("E", bound=BaseException)

# Characters of one text. As many as a remote client is told.
LONGEST_TEXT = 8192
# Characters of a traceback, which goes into a log and into the report of a crash, and of each of its lines.
LONGEST_TRACEBACK = 32 << 10
# What a class and an exception are by themselves, whatever they give themselves out to be.
_NAME: Any = type.__dict__["__name__"]
_TRACE: Any = BaseException.__dict__["__traceback__"]
_CODE: Any = SystemExit.__dict__["code"]


def is_of(error: BaseException | None, kind: type[E] | tuple[type[E], ...]) -> TypeGuard[E]:
    """Whether it is of that class by its type: the class that it says it has may be a lie, or raise."""
    return issubclass(type(error), kind)


def text_of(error: BaseException, longest: int = LONGEST_TEXT) -> str:
    """Its own text, or a word on why there is none."""
    return _attempted(lambda: str(error), "text", longest)


def shown(value: object, longest: int = 200) -> str:
    """The repr of a value of somebody else."""
    return _attempted(lambda: repr(value), "repr", longest)


def name_of(error: BaseException) -> str:
    """The name of its class."""
    return sendable(_NAME.__get__(type(error)))


def described(error: BaseException) -> str:
    """The name of its class, and its text where it has one."""
    return f"{name_of(error)}: {text_of(error)}".removesuffix(": ")


def sendable(text: str, longest: int = LONGEST_TEXT) -> str:
    """A text, without its end where it is longer, and with backslashes for what UTF-8 cannot say."""
    beginning = str.__getitem__(text, slice(longest))  # a subclass of str may do what it likes
    left_out = str.__len__(text) - str.__len__(beginning)
    encodable = str.encode(beginning, "utf-8", "backslashreplace").decode()
    return f"{encodable}... ({left_out} characters are left out)" if left_out else encodable


def exit_code(error: BaseException) -> Any:
    """What sys.exit was called with."""
    return _CODE.__get__(error)


def place_of(error: BaseException) -> str:
    """`file:line` of the innermost frame of the user's own code; "" where none is."""
    place = ""
    for frame, line in traceback.walk_tb(frames_of(error)):
        name = frame.f_code.co_filename
        if not name.startswith(("<frozen", _OURS)) and not is_installed(name):
            place = f"{name}:{line}"
    return sendable(place)


def traceback_of(error: BaseException) -> str:
    """As Python would print it, or the frames alone where that fails; no line is longer than LONGEST_TEXT."""
    try:
        return _bounded(traceback.TracebackException(type(error), error, frames_of(error)).format())
    except KeyboardInterrupt:
        raise
    except BaseException:  # a property of it raised, or there is no memory
        return _bounded([*_frames(frames_of(error)), f"{described(error)}\n"])


def frames_of(error: BaseException) -> TracebackType | None:
    """The frames that it came through."""
    return _TRACE.__get__(error)  # type: ignore[no-any-return]


def forget_frames(error: BaseException) -> None:
    """Lets go of the frames that it came through: they would keep leases alive."""
    _TRACE.__set__(error, None)


def is_installed(path: str) -> bool:
    """Whether a file is of Python itself or of what was installed beside it."""
    return os.path.isabs(path) and path.startswith(_INSTALLED)


_OURS = os.path.dirname(os.path.abspath(__file__)) + os.sep
_INSTALLED = tuple(f"{sysconfig.get_path(each)}{os.sep}" for each in ("stdlib", "platstdlib", "purelib", "platlib"))


def _attempted(say: Callable[[], str], what: str, longest: int) -> str:
    try:
        return sendable(say(), longest)
    except KeyboardInterrupt:
        raise  # from the keyboard: no fault of the exception's author
    except BaseException as fault:
        return f"(its {what} cannot be had: {name_of(fault)})"


def _frames(trace: TracebackType | None) -> list[str]:
    try:
        return traceback.format_tb(trace)
    except Exception:
        return []


def _bounded(lines: Iterable[str]) -> str:
    """The lines as one text; of a long one its beginning and its end."""
    text = "".join(_line(each) for each in lines).rstrip("\n")
    if len(text) <= LONGEST_TRACEBACK:
        return text
    half = LONGEST_TRACEBACK // 2
    return f"{text[:half]}\n[{len(text) - 2 * half} characters are left out]\n{text[-half:]}"


def _line(line: str) -> str:
    return sendable(line) if len(line) <= LONGEST_TEXT else f"{sendable(line)}\n"
