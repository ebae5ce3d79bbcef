"""What a measurement was made on: without it, no figure means anything."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from time import perf_counter_ns
from typing import Any

from ...runtime.host.topology import Topology
from .contestant import Seats

_PACKAGES = ("slabwire", "numpy", "pyzmq", "msgpack")


def describe(seats: Seats) -> dict[str, Any]:
    """Processor, cores, kernel, Python, packages; `clock_us` is what reading the clock twice costs."""
    return {
        "processor": _processor(),
        "topology": Topology.read().describe(),
        "cpus": {"caller": seats.caller, "echo": seats.echo},
        "kernel": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "versions": {name: _version(name) for name in _PACKAGES},
        "load_average": os.getloadavg()[0],
        "clock_us": _clock_us(),
    }


def lines(machine: dict[str, Any]) -> list[str]:
    """The same for people."""
    versions = ", ".join(f"{name} {each}" for name, each in machine["versions"].items())
    cpus = machine["cpus"]
    seats = f"caller on CPU {cpus['caller']}, echo on CPU {cpus['echo']}"
    load = f"load average {machine['load_average']:.2f} at the start"
    return [
        f"{machine['processor']}; {machine['topology']}",
        f"{machine['kernel']}; {machine['python']}; {versions}",
        f"{seats}; {load}; reading the clock costs {machine['clock_us']:.2f} µs of each sample",
    ]


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        text = ""
    names = [line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _clock_us() -> float:
    return median(-(perf_counter_ns() - perf_counter_ns()) for _ in range(1000)) / 1e3
