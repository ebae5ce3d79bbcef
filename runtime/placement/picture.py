"""A plan as a picture: sockets, nodes, caches, cores and hardware threads as boxes, workers in colour. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from colorsys import hls_to_rgb
from dataclasses import dataclass, field
from html import escape
from itertools import groupby
from typing import Any

from ..host.topology import Core, Topology
from .machine_map import NOT_PINNED
from .plan import Plan, cpu_list

_THREAD_WIDTH, _LABEL_HEIGHT, _PADDING, _GAP, _TITLE = 96, 18, 8, 8, 18
# As wide as a page; boxes flow onto the next line beyond it.
_WIDTH = 1260
_MOST_CORES_ABREAST = 7
# Characters of 11 px that fit into a label.
_LABEL_LETTERS = 14
_LINE_LETTERS = 150
_FREE = "#f4f4f5"


@dataclass
class _Box:
    """Something with a place. `draw(x, y)` gives its elements."""

    width: float
    height: float
    draw: Callable[[float, float], Iterable[str]] = field(repr=False)


def picture(plan: Plan, topology: Topology) -> str:
    """An SVG document that needs nothing beside it."""
    colours = {each.name: _colour(index) for index, each in enumerate(plan.workers)}
    machine = _flow([_package(plan, cores, topology, colours) for cores in _groups(topology.cores, "package")], _WIDTH)
    legend = _legend(plan, colours)
    width = max(machine.width, legend.width) + 4 * _PADDING
    top, middle = 56.0, 56.0 + machine.height + 2 * _PADDING
    height = middle + legend.height + 2 * _PADDING
    elements = [
        f'<rect x="0" y="0" width="{width:g}" height="{height:g}" fill="#ffffff"/>',
        _text(2 * _PADDING, 26, plan.graph, size=18, weight="bold"),
        _text(2 * _PADDING, 44, plan.machine, size=12, fill="#52525b"),
        *machine.draw(2 * _PADDING, top),
        *legend.draw(2 * _PADDING, middle),
    ]
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:g}" height="{height:g}" '
        f'viewBox="0 0 {width:g} {height:g}" font-family="system-ui, sans-serif">'
    )
    return "\n".join([head, *elements, "</svg>", ""])


def _groups(cores: Sequence[Core], level: str) -> list[list[Core]]:
    def key(core: Core) -> Any:
        return getattr(core, level)

    return [list(group) for _, group in groupby(sorted(cores, key=lambda core: (key(core), core.number)), key=key)]


def _package(plan: Plan, cores: list[Core], topology: Topology, colours: dict[str, str]) -> _Box:
    nodes = [_node(plan, each, topology, colours) for each in _groups(cores, "node")]
    inner = _flow(nodes, _WIDTH - 2 * _PADDING)
    packages = sorted({core.package for core in topology.cores})
    number = packages.index(cores[0].package)  # what firmware calls it may be any number
    return _framed(inner, f"socket {number}", stroke="#a1a1aa", fill="#fafafa")


def _node(plan: Plan, cores: list[Core], topology: Topology, colours: dict[str, str]) -> _Box:
    caches = sorted({core.l3 for core in topology.cores})
    boxes = []
    for group in _groups(cores, "l3"):
        inner = _grid([_core(plan, core, colours) for core in group])
        boxes.append(_framed(inner, f"L3 {caches.index(group[0].l3)}", stroke="#bfdbfe", fill="#eff6ff"))
    inner = _flow(boxes, _WIDTH - 4 * _PADDING)
    return _framed(inner, f"NUMA node {cores[0].node}", stroke="#d4d4d8", fill="#ffffff")


def _core(plan: Plan, core: Core, colours: dict[str, str]) -> _Box:
    """Its hardware threads above each other, each with the workers that may run there."""
    inner = _flow([_thread(plan, cpu, colours) for cpu in core.cpus], 0, gap=4)
    return _framed(inner, f"core {core.number}{' (slow)' if core.efficient else ''}", stroke="#d4d4d8", fill="#ffffff")


def _thread(plan: Plan, cpu: int, colours: dict[str, str]) -> _Box:
    names = [each.name for each in plan.workers if cpu in each.cores]
    labels = [_label(name, colours[name]) for name in names] or [_label("", _FREE)]
    inner = _flow(labels, 0, gap=2)

    def draw(x: float, y: float) -> Iterable[str]:
        yield _text(x, y + 13, str(cpu), size=10, fill="#71717a")
        yield from inner.draw(x + 24, y)

    return _Box(inner.width + 24, inner.height, draw)


def _label(name: str, colour: str) -> _Box:
    shown = name if len(name) <= _LABEL_LETTERS else f"{name[: _LABEL_LETTERS - 1]}…"

    def draw(x: float, y: float) -> Iterable[str]:
        yield f"<g><title>{escape(name or 'free')}</title>"
        yield _rect(x, y, _THREAD_WIDTH, _LABEL_HEIGHT, fill=colour, stroke="none", radius=3)
        yield _text(x + 4, y + 13, shown, size=11)
        yield "</g>"

    return _Box(_THREAD_WIDTH, _LABEL_HEIGHT, draw)


def _legend(plan: Plan, colours: dict[str, str]) -> _Box:
    lines = [(colours[each.name], _sentence(each)) for each in plan.workers]
    lines.append((_FREE, f"free. {NOT_PINNED}"))

    def draw(x: float, y: float) -> Iterable[str]:
        for number, (colour, text) in enumerate(lines):
            at = y + number * 20
            yield _rect(x, at, 14, 14, fill=colour, stroke="#d4d4d8", radius=3)
            yield _text(x + 22, at + 11, text, size=12)

    width = max(len(text) for _, text in lines) * 6.4 + 22
    return _Box(width, 20.0 * len(lines), draw)


def _sentence(line: Any) -> str:
    actors = "" if line.instances == (line.name,) else f" ({', '.join(line.instances)})"
    threads = f", {line.threads} threads" if line.threads > 1 else ""
    spins = "" if line.spin else ", does not spin"
    text = f"{line.name}{actors}: CPU {cpu_list(line.cores)}{threads}{spins}; {line.reason}"
    return text if len(text) <= _LINE_LETTERS else f"{text[: _LINE_LETTERS - 1]}…"


# -- boxes in boxes ----------------------------------------------------------------------------------------------------


def _flow(boxes: Sequence[_Box], width: float, gap: float = _GAP) -> _Box:
    """Side by side, and on the next line where it gets too wide. A width of 0 makes a column."""
    places: list[tuple[float, float, _Box]] = []
    x = y = row = widest = 0.0
    for box in boxes:
        if x and x + box.width > width:
            x, y, row = 0.0, y + row + gap, 0.0
        places.append((x, y, box))
        x, row = x + box.width + gap, max(row, box.height)
        widest = max(widest, x - gap)
    return _Box(widest, y + row, lambda left, top: _drawn(places, left, top))


def _grid(boxes: Sequence[_Box]) -> _Box:
    """In rows of about the same length."""
    rows = math.ceil(len(boxes) / _MOST_CORES_ABREAST)
    abreast = math.ceil(len(boxes) / rows)
    return _flow(boxes, abreast * (max(box.width for box in boxes) + _GAP))


def _drawn(places: Sequence[tuple[float, float, _Box]], left: float, top: float) -> Iterable[str]:
    for x, y, box in places:
        yield from box.draw(left + x, top + y)


def _framed(inner: _Box, title: str, *, stroke: str, fill: str) -> _Box:
    width, height = inner.width + 2 * _PADDING, inner.height + 2 * _PADDING + _TITLE

    def draw(x: float, y: float) -> Iterable[str]:
        yield _rect(x, y, width, height, fill=fill, stroke=stroke, radius=6)
        yield _text(x + _PADDING, y + 17, title, size=11, fill="#52525b")
        yield from inner.draw(x + _PADDING, y + _PADDING + _TITLE)

    return _Box(width, height, draw)


def _rect(x: float, y: float, width: float, height: float, *, fill: str, stroke: str, radius: float) -> str:
    place = f'x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}"'
    return f'<rect {place} rx="{radius:g}" fill="{fill}" stroke="{stroke}"/>'


def _text(x: float, y: float, text: str, *, size: int, fill: str = "#18181b", weight: str = "normal") -> str:
    bold = "" if weight == "normal" else f' font-weight="{weight}"'
    return f'<text x="{x:g}" y="{y:g}" font-size="{size}" fill="{fill}"{bold}>{escape(text)}</text>'


def _colour(index: int) -> str:
    """Light ones, far from each other: the golden angle around the wheel."""
    parts = hls_to_rgb(index * 137.508 / 360 % 1, (82 - index % 3 * 5) / 100, 0.7)
    return "#" + "".join(f"{round(255 * each):02x}" for each in parts)
