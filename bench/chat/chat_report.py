"""The result of `bench chat`: as a document for programs, as tables for people."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import click

from ...cli.rendering.presentation import print_table
from ..harness.comparison import Comparison
from ..harness.measure import NOISY_FROM, Measurement
from .chat_load import STREAMS, Results, Way, is_beside

LEAST_RATIO = 0.9  # of the bare engine's tokens a second, through the whole stack
MOST_FIRST = 0.1  # of the time to a cold prompt's first token, where its beginning is known

# Above this part of a visit the engine did not have its CPU to itself.
MOST_WAITED = 0.02

_RATE_HEADS = (
    "streams",
    "way",
    ">tokens/s",
    ">MAD",
    ">× bare",
    ">with prompts",
    ">× bare",
    ">engine's CPU/token",
    ">× bare",
)
_TOKEN_HEADS = ("way", ">µs/token", ">MAD", ">more than the way before")
_BESIDE_HEADS = ("streams", "way", ">together", ">MAD")
_FIRST_HEADS = ("first token", ">prompt", ">cached", ">median ms", ">MAD", ">× cold")
_FIRST_TITLES = {"bare": "bare engine, cold", "cold": "whole stack, cold", "cached": "whole stack, cached beginning"}


def document(
    results: Results,
    ways: Sequence[Way],
    machine: dict[str, Any],
    about: dict[str, Any],
    comparison: Comparison | None = None,
) -> dict[str, Any]:
    """Everything, with the figure of each round. `times_bare` compares within the rounds."""
    return {
        "bench": "chat",
        "topology": "one_to_one",
        **about,
        "machine": machine,
        "answers": results.answers,
        "repeated": results.repeated,
        "tokens_per_s": [_rate(results, way.name, streams) for streams in STREAMS for way in ways],
        "token": [_token(results, way.name, below) for below, way in _floors(ways)],
        "beside_engine": [_beside(results, way.name, streams) for streams in STREAMS for way in ways[1:]],
        "first_token": {name: _first(results, name) for name in results.first},
        "bars": bars(results, ways[-1].name),
        "against": None if comparison is None else comparison.plain(),
        "warnings": warnings(results, ways),
    }


def bars(results: Results, outermost: str) -> list[dict[str, Any]]:
    """What is demanded, and what is."""
    ratios = {streams: 1 / results.rate["bare", streams].times(results.rate[outermost, streams]) for streams in STREAMS}
    found = [
        {
            "what": f"tokens a second at {streams} stream{'s' * (streams > 1)}, whole stack / bare engine",
            "value": ratio,
            "least": LEAST_RATIO,
            "is_met": ratio >= LEAST_RATIO,
        }
        for streams, ratio in ratios.items()
    ]
    first = results.first["cached"].times(results.first["cold"])
    what = "time to the first token, cached beginning / cold"
    return [*found, {"what": what, "value": first, "most": MOST_FIRST, "is_met": first <= MOST_FIRST}]


def warnings(results: Results, ways: Sequence[Way]) -> list[str]:
    titles = {way.name: way.title for way in ways}
    rates = {f"{titles[name]} at {streams} streams": each for (name, streams), each in results.rate.items()}
    firsts = {_FIRST_TITLES[name]: each for name, each in results.first.items()}
    noisy = {what: each.mad / each.median for what, each in {**rates, **firsts}.items() if each.is_noisy}
    said = []
    if noisy:
        worst = max(noisy, key=lambda each: noisy[each])
        said.append(
            f"a noisy machine: {len(noisy)} of {len(rates) + len(firsts)} figures deviate by more than "
            f"{NOISY_FROM:.0%} from round to round, most that of {worst} ({noisy[worst]:.0%}); trust the ratios more "
            "than the figures, or take more --rounds on a quiet machine"
        )
    waited = max(each.median for each in results.waited.values())
    if waited > MOST_WAITED:
        said.append(
            f"other programs ran on the engine's CPU: it waited for {waited:.0%} of a visit's time; the CPU time by "
            "token says more than the tokens a second"
        )
    return said


def show(found: dict[str, Any], ways: Sequence[Way], machine_lines: Sequence[str]) -> None:
    """Prints the document."""
    titles = {way.name: way.title for way in ways}
    print_table(
        _RATE_HEADS,
        _rate_rows(found, titles),
        title="tokens a second while all streams decode",
    )
    processes = list(found["token"][0]["cpu_us"])
    heads = (*_TOKEN_HEADS, *(f">CPU {each}" for each in processes))
    rows = [_token_row(each, titles, processes) for each in found["token"]]
    print_table(heads, rows, title="\nfrom token to token of one stream, and CPU time by token, in µs")
    beside = list(filter(is_beside, processes))
    heads = (*_BESIDE_HEADS, *(f">{each}" for each in beside))
    rows = [_beside_row(each, titles, beside) for each in found["beside_engine"]]
    print_table(heads, rows, title="\nCPU time beside the engine by token, in µs, prompts included")
    print_table(_FIRST_HEADS, map(_first_row, found["first_token"].items()), title="\ntime to the first token")
    click.echo()
    for bar in found["bars"]:
        limit = f"at least {bar['least']}" if "least" in bar else f"at most {bar['most']}"
        click.echo(f"{bar['what']}: {bar['value']:.3f}, {limit} demanded: {'met' if bar['is_met'] else 'NOT met'}")
    click.echo(
        f"{found['rounds']} interleaved rounds, up to {found['tokens']} tokens an answer; {found['answers']} answers; "
        f"visits repeated since answers ended too soon: {found['repeated']}.\n"
        "Each conversation begins with a number of its own and is asked without a seed, so neither cache helps but "
        "where that is said.\nWithout chance all ways gave the same words, and as many tokens as their usage says."
    )
    for line in [*machine_lines, *(f"warning: {each}" for each in found["warnings"])]:
        click.echo(line)


def _floors(ways: Sequence[Way]) -> list[tuple[str | None, Way]]:
    """Each way, after the name of the one that it stands on."""
    return [(None, ways[0]), *((below.name, way) for below, way in pairwise(ways))]


def _figures(measured: Measurement) -> dict[str, Any]:
    return {"median": measured.median, "mad": measured.mad, "rounds": measured.medians}


def _rate(results: Results, way: str, streams: int) -> dict[str, Any]:
    rate, whole = results.rate[way, streams], results.whole[way, streams]
    cpu, bare_cpu = results.cpu[way, streams]["engine"], results.cpu["bare", streams]["engine"]
    return {
        "way": way,
        "streams": streams,
        **_figures(rate),
        "times_bare": rate.times(results.rate["bare", streams]),
        "with_prompts": {**_figures(whole), "times_bare": whole.times(results.whole["bare", streams])},
        "engine_cpu_us": {**_figures(cpu), "times_bare": cpu.times(bare_cpu)},
        "engine_waited": results.waited[way, streams].median,
    }


def _token(results: Results, way: str, below: str | None) -> dict[str, Any]:
    cpu = {process: each.median for process, each in results.cpu[way, 1].items()}
    added = None if below is None else _figures(results.floor(way, below))
    return {"way": way, "us": _figures(results.gap[way]), "added_us": added, "cpu_us": cpu}


def _beside(results: Results, way: str, streams: int) -> dict[str, Any]:
    cpu = {process: each.median for process, each in results.cpu[way, streams].items() if is_beside(process)}
    return {"way": way, "streams": streams, **_figures(results.beside(way, streams)), "cpu_us": cpu}


def _first(results: Results, name: str) -> dict[str, Any]:
    prompt, cached = results.prompts[name]
    times = results.first[name].times(results.first["cold"])
    return {"prompt_tokens": prompt, "cached_tokens": cached, **_figures(results.first[name]), "times_cold": times}


def _rate_rows(found: dict[str, Any], titles: dict[str, str]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for each in found["tokens_per_s"]:
        whole, cpu = each["with_prompts"], each["engine_cpu_us"]
        shown = str(each["streams"]) if each["way"] == "bare" else ""
        figures = (f"{each['median']:.1f}", f"{each['mad']:.1f}", f"{each['times_bare']:.3f}")
        with_prompts = (f"{whole['median']:.1f}", f"{whole['times_bare']:.3f}")
        engine = (f"{cpu['median'] / 1e3:.2f} ms", f"{cpu['times_bare']:.3f}")
        rows.append((shown, titles[each["way"]], *figures, *with_prompts, *engine))
    return rows


def _token_row(each: dict[str, Any], titles: dict[str, str], processes: Sequence[str]) -> tuple[str, ...]:
    added = each["added_us"]
    more = "" if added is None else f"{added['median']:+,.0f} ± {added['mad']:,.0f}"
    times = (f"{each['us']['median']:,.0f}", f"{each['us']['mad']:,.0f}", more)
    return (titles[each["way"]], *times, *(f"{each['cpu_us'][process]:,.0f}" for process in processes))


def _beside_row(each: dict[str, Any], titles: dict[str, str], processes: Sequence[str]) -> tuple[str, ...]:
    figures = (each["median"], each["mad"], *(each["cpu_us"][process] for process in processes))
    return (str(each["streams"]), titles[each["way"]], *(f"{figure:,.0f}" for figure in figures))


def _first_row(named: tuple[str, dict[str, Any]]) -> tuple[str, ...]:
    name, each = named
    tokens = (str(each["prompt_tokens"]), str(each["cached_tokens"]))
    times = (f"{each['median'] * 1e3:.0f}", f"{each['mad'] * 1e3:.0f}", f"{each['times_cold']:.3f}")
    return (_FIRST_TITLES[name], *tokens, *times)
