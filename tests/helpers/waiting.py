"""Looks again and again until something is so: tests synchronise on what they see, never on time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any


def wait_until(condition: Callable[[], Any]) -> Any:
    """What `condition` gave when it first gave something true."""
    while not (seen := condition()):
        time.sleep(0.005)
    return seen


def worker_of(running: Any, name: str) -> dict[str, Any]:
    """The line of one worker in the status of a graph."""
    return next(each for each in running.status()["workers"] if each["name"] == name)
