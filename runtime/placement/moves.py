"""A plan in which one worker was moved to other CPUs. Pure: a plan goes in, another comes out."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from ...shm.cgroup import parse_cpu_list
from ..errors import SlabwireError
from ..host.topology import Topology
from .pinning import Pins, companions, cores_of, is_affordable, may_spin, present
from .plan import Plan, WorkerPlan, cpu_list, listed

FREE = "free"
# CPU numbers beyond this stand in no machine's list; a range such as 0-9999999999 must not become a set.
_LARGEST_CPU = 8191
_LONGEST_TEXT = 256


class MoveError(SlabwireError, ValueError):
    """A worker that cannot be moved to where it was told."""

    code = "move"
    http_status = 409


def wanted_cpus(text: str, plan: Plan, topology: Topology, worker: str) -> tuple[int, ...]:
    """The CPUs that "1", "0-2,8" or "free" mean for a worker. Raises MoveError for what cannot be."""
    planned = plan.worker(worker)
    cpus = free_cpus(plan, topology, worker) if text == FREE else _parsed(text)
    foreign = sorted(set(cpus) - set(topology.cpus))
    if foreign:
        allowed = cpu_list(topology.cpus)
        raise MoveError(f"CPU {cpu_list(tuple(foreign))} is not for this graph to use; it may use {allowed}")
    if len(cpus) < planned.threads:
        raise MoveError(
            f"{worker} has thread pools of {planned.threads} threads, sized when it started, and CPU {cpu_list(cpus)} "
            f"is too few for them; name at least {planned.threads}"
        )
    return cpus


def _parsed(text: str) -> tuple[int, ...]:
    numbers = [each for part in text.split(",") for each in part.split("-")]
    if len(text) > _LONGEST_TEXT or not all(each.isdecimal() and int(each) <= _LARGEST_CPU for each in numbers):
        raise MoveError(f"{text[:_LONGEST_TEXT]!r} are no CPUs; write them as in 1, 0-2 or 0,4, or {FREE!r}")
    cpus = tuple(sorted(parse_cpu_list(text)))
    if not cpus:
        raise MoveError(f"{text!r} holds no CPU: a range goes from the lower to the higher number")
    return cpus


def free_cpus(plan: Plan, topology: Topology, worker: str) -> tuple[int, ...]:
    """Physical cores that nobody is on, as many as the worker has threads. Raises MoveError if there are fewer."""
    planned = plan.worker(worker)
    others = [each.cores for each in plan.workers if each.name != worker]
    usable = topology.cores[: topology.usable_cores]
    free = [core for core in usable if not present(core, others)]
    fresh = [core for core in free if set(core.cpus).isdisjoint(planned.cores)]
    if len(fresh) < planned.threads:
        alone = f"; it is alone on CPU {cpu_list(planned.cores)} already" if cores_of(planned.cores, free) else ""
        need = f"{worker} needs {planned.threads} that nobody is on"
        raise MoveError(f"{need}, and {len(fresh)} of the {len(usable)} usable cores are free{alone}")
    return tuple(sorted(cpu for core in fresh[: planned.threads] for cpu in core.cpus))


def moved(plan: Plan, topology: Topology, worker: str, cpus: Collection[int], why: str) -> Plan:
    """The plan after a move: who may spin is decided anew for all, and who has other company than before says so."""
    names = [each.name for each in plan.workers]
    at = names.index(worker)
    before: Pins = [each.cores for each in plan.workers]
    after: Pins = [tuple(sorted(cpus)) if name == worker else each for name, each in zip(names, before, strict=True)]
    spins = may_spin(after, topology)
    note = "" if is_affordable(after, topology) else f"; no spinning on a CPU quota of {topology.quota:g}"
    lines = []
    for index, each in enumerate(plan.workers):
        company = _company(index, after, names, topology)
        reason = each.reason
        if index == at:
            reason = f"{why} from CPU {cpu_list(each.cores)}: {company}{note}"
        elif companions(index, before, topology.cores) != companions(index, after, topology.cores):
            reason = f"{company}, since {worker} was moved{note}"
        lines.append(replace(each, cores=tuple(after[index]), spin=spins[index], reason=reason))
    return replace(plan, workers=tuple(lines))


def _company(index: int, pins: Pins, names: list[str], topology: Topology) -> str:
    cores = cores_of(pins[index], topology.cores)
    place = f"{'core' if len(cores) == 1 else 'cores'} {cpu_list(tuple(core.number for core in cores))}"
    others = [names[other] for other in companions(index, pins, topology.cores)]
    return f"shares {place} with {listed(others)}" if others else f"alone on {place}"


def changed(before: Plan, after: Plan) -> list[WorkerPlan]:
    """The lines that differ, as they are now."""
    return [new for old, new in zip(before.workers, after.workers, strict=True) if old != new]
