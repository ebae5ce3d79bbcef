"""Exceptions that their authors got wrong, and an actor that raises them from every kind of handler."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, NoReturn

import slabwire
from slabwire import Actor, batched


class NoText(Exception):
    def __str__(self) -> str:
        raise KeyError("no text")


class TextIsNone(Exception):
    def __str__(self) -> str:
        return None  # type: ignore[return-value]


class TextExits(Exception):
    def __str__(self) -> str:
        raise SystemExit(3)


class OddText(str):
    """A text that is not to be trusted with anything."""

    def __len__(self) -> int:
        raise ZeroDivisionError

    def __getitem__(self, key: Any) -> str:
        raise ZeroDivisionError

    def encode(self, *rest: Any) -> bytes:
        raise ZeroDivisionError

    def __format__(self, spec: str) -> str:
        raise ZeroDivisionError


class OddlyPut(Exception):
    def __str__(self) -> str:
        return OddText("odd\udcff")


def _raises(_: object) -> None:
    raise ZeroDivisionError


class Lies(Exception):
    """Every property that whoever reports an exception looks at raises."""

    __class__ = __cause__ = __notes__ = __traceback__ = property(_raises)

    def __repr__(self) -> str:
        raise ZeroDivisionError

    def __bool__(self) -> bool:
        raise ZeroDivisionError

    def with_traceback(self, trace: Any) -> Any:
        raise ZeroDivisionError


class GivesItselfOut(Exception):
    """Says that it is an error of the package."""

    __class__ = slabwire.SlabwireError  # type: ignore[assignment]


class NamelessKind(type):
    __name__ = property(_raises)


class Nameless(Exception, metaclass=NamelessKind):
    pass


class OddCode(slabwire.SlabwireError):
    code = "caf\udce9"

    def __str__(self) -> str:
        raise KeyError("no text")


class CodeRaises(slabwire.SlabwireError):
    code = property(_raises)


class OddlyCancelled(asyncio.CancelledError):
    def __str__(self) -> str:
        raise KeyError("no text")


class Abort(BaseException):
    """As libraries have them to pass `except Exception`."""


def deep_group() -> BaseException:
    error: Exception = ValueError("at the bottom")
    for _ in range(3000):
        error = ExceptionGroup("level", [error])
    return error


def long_chain() -> BaseException:
    error: BaseException = ValueError("the first")
    for number in range(3000):
        following = ValueError(f"number {number}")
        following.__cause__ = error
        error = following
    return error


def with_notes() -> BaseException:
    error = ValueError("noted")
    error.add_note("a note \udce9")
    error.__notes__.append(7)  # type: ignore[arg-type]
    return error


def raised(error: BaseException) -> NoReturn:
    raise error


def recursion() -> int:
    return recursion() + 1


# What raises, and what the caller must read of it at least.
RAISERS: dict[str, tuple[Callable[[], Any], str]] = {
    "surrogate": (
        lambda: raised(ValueError("caf\udce9: no picture")),
        r"caf\\udce9: no picture \(.*:\d+\)",
    ),
    "surrogate pair": (lambda: raised(OSError(2, "gone", "\ud83d.png")), r"FileNotFoundError: .*ud83d\.png"),
    "nul": (lambda: raised(ValueError("a\0b")), "ValueError: a\0b"),
    "no text": (lambda: raised(NoText()), r"NoText: \(its text cannot be had: KeyError\)"),
    "text is none": (lambda: raised(TextIsNone()), r"TextIsNone: \(its text cannot be had: TypeError\)"),
    "text exits": (lambda: raised(TextExits()), r"TextExits: \(its text cannot be had: SystemExit\)"),
    "odd text": (lambda: raised(OddlyPut()), r"OddlyPut: odd\\udcff"),
    "lies": (lambda: raised(Lies("lied")), "Lies: lied"),
    "gives itself out": (lambda: raised(GivesItselfOut("no")), "GivesItselfOut: no"),
    "nameless": (lambda: raised(Nameless("who")), "Nameless: who"),
    "huge": (lambda: raised(ValueError("x" * 20_000_000)), r"ValueError: x+\.\.\. \(\d+ characters are left out\)"),
    "deep group": (lambda: raised(deep_group()), r"ExceptionGroup: level \(1 sub-exception\)"),
    "long chain": (lambda: raised(long_chain()), "ValueError: number 2999"),
    "notes": (lambda: raised(with_notes()), "ValueError: noted"),
    "recursion": (recursion, "RecursionError: maximum recursion depth"),
    "memory": (lambda: raised(MemoryError()), "MemoryError"),
    "stop iteration": (lambda: next(iter(())), "StopIteration"),
    "stop async iteration": (lambda: raised(StopAsyncIteration()), "StopAsyncIteration"),
    "generator exit": (lambda: raised(GeneratorExit("mine")), "GeneratorExit: mine"),
    "abort": (lambda: raised(Abort("all")), "Abort: all"),
    "base group": (lambda: raised(BaseExceptionGroup("b", [Abort()])), r"BaseExceptionGroup: b \(1 sub-exception\)"),
}
# Errors of the package's kind, and what becomes of them.
OWN_RAISERS: dict[str, tuple[Callable[[], Any], type[slabwire.SlabwireError], str]] = {
    "odd code": (lambda: raised(OddCode()), slabwire.SlabwireError, r"its text cannot be had: KeyError"),
    "code raises": (lambda: raised(CodeRaises("but has a text")), slabwire.SlabwireError, "but has a text"),
    "cancelled": (lambda: raised(asyncio.CancelledError("caf\udce9")), slabwire.Cancelled, r"caf\\udce9"),
    "oddly cancelled": (lambda: raised(OddlyCancelled()), slabwire.Cancelled, "its text cannot be had: KeyError"),
}
EVERY = {**{name: each[0] for name, each in RAISERS.items()}, **{name: each[0] for name, each in OWN_RAISERS.items()}}
PORTS = ("plain", "generator", "late", "coroutine", "later", "async_generator", "batch", "task")
STREAMS = ("generator", "late", "async_generator")


class Raises(Actor):
    """Raises what is asked of it, from each kind of handler."""

    def plain(self, what: str) -> int:
        return int(EVERY[what]())

    def generator(self, what: str) -> Iterator[int]:
        yield EVERY[what]()

    def late(self, what: str) -> Iterator[int]:
        try:
            yield 1
        finally:
            EVERY[what]()

    async def coroutine(self, what: str) -> int:
        return int(EVERY[what]())

    async def later(self, what: str) -> int:
        try:
            await asyncio.sleep(0.001)
        finally:
            EVERY[what]()
        return 1

    async def async_generator(self, what: str) -> AsyncIterator[int]:
        yield 1
        await asyncio.sleep(0)
        yield EVERY[what]()

    @batched(max_size=4, max_wait_s=0.001)
    def batch(self, whats: list[str]) -> list[int]:
        return [EVERY[each]() for each in whats]

    async def task(self, what: str) -> int:
        async def inner() -> int:
            return int(EVERY[what]())

        return await asyncio.create_task(inner())

    def pid(self) -> int:
        return os.getpid()


class Asks(Actor):
    """Calls another actor that raises, as any client does."""

    async def call_it(self, what: str) -> str:
        try:
            return str(await self.call("raises.plain", what))
        except slabwire.SlabwireError as error:
            return str(error)


def forward(what: str) -> str:
    return what


def graph(name: str) -> slabwire.Graph:
    made = slabwire.Graph(name)
    raises, asks, first = made.add(Raises), made.add(Asks), made.add(forward)
    behind = made.add(Raises, name="behind")
    made.connect(first, behind.plain)
    made.expose(*(getattr(raises, port) for port in (*PORTS, "pid")), asks.call_it, first)
    return made
