"""The messages that were given up: a bounded list, newest last."""

from __future__ import annotations

import time
from collections import deque
from typing import Any

from ..control.worker_line import Dead

MOST_KEPT = 256


class DeadLetters:
    """Kept by the supervisor, so that they outlive the actors that died of them."""

    def __init__(self) -> None:
        self._kept: deque[dict[str, Any]] = deque(maxlen=MOST_KEPT)

    def add(self, letter: Dead) -> None:
        self._kept.append({"unix_s": time.time(), **letter._asdict()})

    def listed(self) -> list[dict[str, Any]]:
        return list(self._kept)
