"""The axes of a tensor type, as jaxtyping writes them: which shapes fit, and which two can never meet. No I/O."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Axis:
    """One axis: of a fixed size, named, or free. A broadcasting one may always be of size 1."""

    name: str | None = None
    size: int | None = None
    broadcasts: bool = False
    variadic: bool = False


@dataclass(frozen=True)
class Pattern:
    """The axes before and after the one that stands for any number of them, if there is one."""

    before: tuple[Axis, ...]
    variadic: Axis | None
    after: tuple[Axis, ...]

    @property
    def least(self) -> int:
        return len(self.before) + len(self.after)

    @property
    def rank_text(self) -> str:
        return f"{self.least} or more" if self.variadic else str(self.least)


def parse_axis(text: str) -> Axis:
    """One word of a jaxtyping dimension string: `3`, `h`, `#h`, `_`, `...`, `*batch`, `h=3`; an expression is free."""
    if text == "...":
        return Axis(variadic=True)
    body = text.lstrip("#*?")
    marks = text[: len(text) - len(body)]
    body = body.rpartition("=")[2]
    broadcasts, variadic = "#" in marks, "*" in marks
    if body.isdecimal():
        return Axis(size=int(body), broadcasts=broadcasts)
    named = body.isidentifier() and not body.startswith("_") and "?" not in marks
    return Axis(body if named else None, None, broadcasts, variadic)


def parse(dims: tuple[str, ...]) -> Pattern:
    """The axes of a tensor type; jaxtyping allows one variadic axis at most."""
    axes = tuple(map(parse_axis, dims))
    place = next((index for index, each in enumerate(axes) if each.variadic), None)
    if place is None:
        return Pattern(axes, None, ())
    return Pattern(axes[:place], axes[place], axes[place + 1 :])


def clash(source: tuple[str, ...] | None, target: tuple[str, ...] | None) -> str | None:
    """Why no shape fits both; None where one may."""
    if source is None or target is None:
        return None
    one, other = parse(source), parse(target)
    if (one.least < other.least and not one.variadic) or (other.least < one.least and not other.variadic):
        return f"rank {one.rank_text} is not rank {other.rank_text}"
    pairs = [*zip(one.before, other.before, strict=False), *zip(_backwards(one), _backwards(other), strict=False)]
    return next((f"an axis of {a.size} is not {b.size}" for a, b in pairs if _sizes_clash(a, b)), None)


def _backwards(pattern: Pattern) -> tuple[Axis, ...]:
    """From the last axis backwards; without a variadic axis the whole pattern counts from either end."""
    return (pattern.after if pattern.variadic else pattern.before)[::-1]


def _sizes_clash(one: Axis, other: Axis) -> bool:
    if one.size is None or other.size is None or one.size == other.size:
        return False
    return not ((one.broadcasts and (other.size == 1 or other.broadcasts)) or (other.broadcasts and one.size == 1))


def shape_check(dims: tuple[str, ...] | None) -> Callable[[Shape, dict[str, int]], bool]:
    """A function that says whether a shape fits, and notes the sizes of named axes in its second argument."""
    if dims is None:
        return lambda _shape, _axes: True
    pattern = parse(dims)
    least, exact = pattern.least, pattern.variadic is None
    ahead = list(enumerate(pattern.before))
    behind = [(index - len(pattern.after), axis) for index, axis in enumerate(pattern.after)]
    checked = [(index, axis) for index, axis in ahead + behind if axis.size is not None or axis.name is not None]

    def fits(shape: Shape, axes: dict[str, int]) -> bool:
        rank = len(shape)
        if rank != least and (exact or rank < least):
            return False
        for index, axis in checked:
            size = shape[index]
            if axis.broadcasts and size == 1:
                continue
            if (axes.setdefault(axis.name, size) if axis.name else axis.size) != size:
                return False
        return exact or _variadic_fits(pattern, shape, axes)

    return fits


def _variadic_fits(pattern: Pattern, shape: Shape, axes: dict[str, int]) -> bool:
    axis = pattern.variadic
    if axis is None or axis.name is None or axis.broadcasts:
        return True
    inner = shape[len(pattern.before) : len(shape) - len(pattern.after)]
    # `axes` holds one number a name: "*batch" is how many axes, "*batch.0" the first one's size.
    sizes = {f"*{axis.name}": len(inner), **{f"*{axis.name}.{index}": size for index, size in enumerate(inner)}}
    return all(axes.setdefault(name, size) == size for name, size in sizes.items())
