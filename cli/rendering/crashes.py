"""Crash reports as people read them; part of `slabwire logs`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import click

from ...runtime.errors import Disconnected
from ...runtime.host import run_directory
from ...runtime.postmortem.report_store import graphs_with_reports, reports
from ...runtime.spelling import near_or_all
from .choice import base_name, known_actor
from .presentation import bytes_text, duration_text, print_json, print_table, time_text

Report = dict[str, Any]


def show_crashes(name: str | None, actors: tuple[str, ...], *, every: bool, form: str) -> None:
    """Prints the latest report of a graph, or of the actors named; or a line of each that is kept."""
    graph = _graph(name)
    found = list(_concerning(graph, actors))
    if form == "json":
        for report in found if every else found[:1]:
            print_json(report)
    elif not found:
        click.echo(f"{graph} has no crash reports")
    elif every:
        print_table(("when", "worker", "how it ended", "then"), [_row(each) for each in found])
    else:
        click.echo("\n".join(lines(found[0])))


def _graph(name: str | None) -> str:
    """The graph that is named, else the only one that runs, else the one that had the last report: it need not run."""
    running, known = run_directory.list_graphs(), graphs_with_reports()
    if name is None:
        if len(running) > 1:
            raise click.UsageError(f"several graphs are running, name one of them: {', '.join(running)}")
        if not running and not known:
            raise Disconnected("no graph is running, and there are no crash reports")
        return running[0] if running else known[-1]
    if name not in running and name not in known:
        everything = [*running, *known]
        there = near_or_all(name, everything) if everything else ""
        raise Disconnected(f"there are no crash reports of a graph {name!r}{there}")
    return name


def _concerning(graph: str, actors: tuple[str, ...]) -> Iterator[Report]:
    """The newest first."""
    kept = list(reports(graph))
    known = list(dict.fromkeys(name for each in kept for name in _names(each)))
    wanted = {known_actor(graph, actor, known) for actor in actors} if kept else set()
    return (each for each in kept if not wanted or wanted & set(_names(each)))


def _names(report: Report) -> list[str]:
    own = [report["worker"], *report["actors"]]
    return [*own, *map(base_name, own)]


def _row(report: Report) -> tuple[str, ...]:
    return time_text(report["unix_s"]), report["worker"], report["reason"], report["next"]


def lines(report: Report) -> Iterator[str]:
    """The whole report."""
    actors = "" if report["actors"] == [report["worker"]] else f" with {', '.join(report['actors'])}"
    yield f"{report['worker']}{actors} of {report['graph']}, process {report['pid']}: {report['reason']}"
    lived = "had run for" if report["was_ready"] else "was starting for"
    age, restarts = duration_text(report["alive_s"]), report["restarts"]
    yield f"at {time_text(report['unix_s'])} UTC; it {lived} {age}, and was restarted {restarts} times before"
    yield f"then: {report['next']}"
    yield from _part("it was handling", map(_input, report["handling"]), nothing="nothing")
    yield from _part("last records of its lanes", _lanes(report))
    yield from _part("lent, and not back", (f"{_blocks(each)}, to {each['target']}" for each in report["lent"]))
    yield from _part("leased from others", (f"{_blocks(each)}, from {each['source']}" for each in report["leased"]))
    yield from _part("flight recorder", map(_event, report["events"]))
    yield from _part("traceback", report["traceback"].splitlines())
    yield from _part("stacks", report["stacks"].splitlines(), nothing="none were written")
    yield from _part("end of its log", report["log"].splitlines(), nothing="it wrote nothing")


def _part(head: str, content: Iterable[str], nothing: str = "") -> Iterator[str]:
    listed: Sequence[str] = list(content) or ([nothing] if nothing else [])
    if listed:
        yield ""
        yield f"{head}:"
        yield from (f"  {each}" for each in listed)


def _input(each: Report) -> str:
    return f"{each['port']} from {each['source']}, attempt {each['attempt']}{_request(each)}"


def _request(each: Report) -> str:
    caller = f" of {each['caller']}" if each.get("caller") else ""
    request = f", request {each['request']}{caller}" if each["request"] else ""
    return f"{request}, trace {each['trace']}" if each["trace"].strip("0") else request


def _lanes(report: Report) -> Iterator[str]:
    for each in report["lanes"]:
        if not each["records"] and not each["waiting"]:
            continue
        way = f"{each['source']} -> {each['target']}"
        yield f"{way} ({each['purpose']}, {each['waiting']} of {each['capacity']} wait)"
        for record in each["records"]:
            state = "waits" if record["waits"] else "given back"
            port = f" for {record['port']}" if record["port"] else ""
            yield f"  {record['number']}: {record['kind']}{port}{_request(record)}: {state}"
    if report["more_lanes"]:
        yield f"and {report['more_lanes']} more lanes"


def _blocks(each: Report) -> str:
    return f"{each['blocks']} blocks, {bytes_text(each['nbytes'])} of {each['owner']}"


def _event(each: Report) -> str:
    ago = f"{each['ago_s']:.6f} s before"
    if each["what"] != "input":
        return f"{ago}: process {each['pid']} {each['what']}"
    took = f"{each['outcome']} in {each['took_s'] * 1e6:.0f} µs" if each["outcome"] else "did not end"
    return f"{ago}: {each['port']} from {each['source']}, attempt {each['attempt']}{_request(each)}: {took}"
