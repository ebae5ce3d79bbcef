"""The result of a ping-pong: as a table for people, as a document for programs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .contestant import Contestant
from .measure import NOISY_FROM, Cell, Measurement

# What the others are compared with: everything on, and the bare lane.
OURS = ("graph_call", "bare_lane")
_HEADS = ("size", "mode", "contestant", ">median µs", ">MAD", ">p99", ">× client.call", ">× bare lane")

Results = dict[Cell, Measurement]


def times_ours(results: Results, cell: Cell) -> dict[str, float | None]:
    """How many times longer a cell takes than ours of the same size and mode."""
    ours = {name: results.get(Cell(cell.nbytes, cell.mode, name)) for name in OURS}
    return {name: None if each is None else results[cell].times(each) for name, each in ours.items()}


def document(results: Results, machine: dict[str, Any], about: dict[str, Any]) -> dict[str, Any]:
    """Everything, with the median of each round; times are in microseconds."""
    return {
        "bench": "hop",
        "topology": "ping_pong",
        **about,
        "machine": machine,
        "results": [_entry(results, cell) for cell in results],
        "warnings": warnings(results),
    }


def _entry(results: Results, cell: Cell) -> dict[str, Any]:
    measured = results[cell]
    return {
        "nbytes": cell.nbytes,
        "mode": str(cell.mode),
        "contestant": cell.contestant,
        "samples": measured.samples,
        "verified": measured.verified,
        "median_us": measured.median,
        "mad_us": measured.mad,
        "p99_us": measured.p99,
        "times": times_ours(results, cell),
        "rounds_us": measured.medians,
    }


def rows(results: Results, titles: dict[str, str]) -> list[tuple[str, ...]]:
    """The table's rows; size and mode stand only where they change."""
    result, before = [], ("", "")
    for cell, measured in results.items():
        place = (size_text(cell.nbytes), str(cell.mode))
        shown = place if place[0] != before[0] else ("", place[1] if place != before else "")
        mad = _number(measured.mad) + (" !" if measured.is_noisy else "")
        ratios = (_ratio(each) for each in times_ours(results, cell).values())
        figures = (_number(measured.median), mad, _number(measured.p99), *ratios)
        result.append((*shown, titles[cell.contestant], *figures))
        before = place
    return result


def show(results: Results, contestants: Sequence[Contestant], machine_lines: Sequence[str]) -> None:
    """Prints the table, the machine and the warnings."""
    import click

    from ..runtime.cli.presentation import print_table

    print_table(_HEADS, rows(results, {each.name: each.title for each in contestants}), title="ping_pong, round trip")
    fewest, most = (pick(each.samples for each in results.values()) for pick in (min, max))
    samples = str(most) if fewest == most else f"{fewest} to {most}"
    count = len(next(iter(results.values())).rounds)
    click.echo(f"\n{samples} samples each, in {count} interleaved rounds; every answer was checked")
    for line in [*machine_lines, *(f"warning: {each}" for each in warnings(results))]:
        click.echo(line)


def warnings(results: Results) -> list[str]:
    noisy = [cell for cell, measured in results.items() if measured.is_noisy]
    if not noisy:
        return []
    worst = max(noisy, key=lambda each: results[each].mad / results[each].median)
    measured = results[worst]
    deviation = f"{measured.mad / measured.median:.0%} with {measured.samples} samples"
    said = (
        f"a noisy machine: the rounds of {len(noisy)} of {len(results)} rows deviate by more than {NOISY_FROM:.0%}, "
        f"most {worst.contestant} at {size_text(worst.nbytes)} {worst.mode} ({deviation}); "
        "trust the ratios more than the times, or take more --rounds on a quiet machine"
    )
    return [said]


def size_text(nbytes: int) -> str:
    """65536 is "64 KiB"; what is no whole number of a unit stays in bytes."""
    for unit, size in (("MiB", 1 << 20), ("KiB", 1 << 10)):
        if nbytes >= size and nbytes % size == 0:
            return f"{nbytes // size} {unit}"
    return f"{nbytes} B"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.1f}"


def _ratio(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}" if value < 10 else f"{value:.0f}"
