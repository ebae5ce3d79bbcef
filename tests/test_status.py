"""What the status of a graph is made of, without a graph."""

from __future__ import annotations

import asyncio
import os
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from slabwire.runtime import status


def test_memory_is_counted_beside_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    is_counting, may_end = threading.Event(), threading.Event()

    def slow(pids: list[int]) -> dict[int, int]:
        is_counting.set()
        may_end.wait()
        return dict.fromkeys(pids, 7)

    monkeypatch.setattr(status, "pss_of", slow)
    monkeypatch.setattr(status, "_document", lambda _, memory: memory)
    workers = {"one": SimpleNamespace(pid=11, is_alive=True), "gone": SimpleNamespace(pid=12, is_alive=False)}
    supervisor: Any = SimpleNamespace(workers=workers, spawner=SimpleNamespace(nursery_pid=10))

    async def ask() -> Any:
        asking = asyncio.create_task(status.status_of(supervisor))
        while not is_counting.is_set():
            await asyncio.sleep(0)
        may_end.set()  # which the loop would not come to while it counted itself
        return await asking

    assert asyncio.run(ask()) == {os.getpid(): 7, 10: 7, 11: 7}
