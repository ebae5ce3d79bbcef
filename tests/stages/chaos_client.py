"""A client of the storm's graph as a process of its own, which may be killed or stopped at any moment.

It calls ports of all kinds, each call once, and notes in a file what was sent and what became of it, each line by one
write: so the file tells of everything that its caller knew when it died.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import slabwire
from kill_stage import checksum, letter

ITEMS = 5
# Apart from each other by more than the items of a stream, and so that letters of all sizes come.
STEP = 7
KINDS = ("plain", "chain", "waits", "batch", "again", "once")
# Calls at a time.
AT_ONCE = 6
TIMEOUT_S = 60.0


class Diary:
    """One line an event: number, kind, and what happened."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def note(self, number: int, kind: str, what: str) -> None:
        os.write(self._file, f"{number} {kind} {what}\n".encode())


def is_right(number: int, answer: Any) -> bool:
    expected = letter(number)
    return bool(
        (answer["n"], answer["check"]) == (number, expected["check"])
        and checksum(number, answer["x"]) == expected["check"]
        and np.array_equal(answer["x"], expected["x"])
    )


def request(kind: str, number: int) -> tuple[str, dict[str, Any]]:
    """Port and fields of a call."""
    if kind in ("again", "once"):
        return f"streams.{kind}", {"first": number, "n": ITEMS}
    if kind == "chain":
        return "make.take", {"n": number}
    if kind == "batch":
        return "batches.take", {"letters": letter(number)}
    return f"{kind}.take", letter(number)


def outcome_of_stream(number: int, items: list[Any]) -> str:
    if len(items) != ITEMS:
        return f"wrong {len(items)} items"
    whole = all(is_right(number + place, item) for place, item in enumerate(items))
    return "answered" if whole else "wrong items"


async def call(client: Any, diary: Diary, kind: str, number: int) -> None:
    port, fields = request(kind, number)
    diary.note(number, kind, "sent")
    try:
        if kind in ("again", "once"):
            items = [each async for each in client.stream(port, **fields, timeout_s=TIMEOUT_S)]
            what = outcome_of_stream(number, items)
        else:
            answer = await client.call(port, **fields, timeout_s=TIMEOUT_S)
            what = "answered" if is_right(number, answer) else "wrong answer"
    except slabwire.SlabwireError as error:
        what = f"error {error.code} {error}"
    diary.note(number, kind, what.replace("\n", " "))


def call_and_wait(client: Any, diary: Diary, kind: str, number: int) -> None:
    """The same by a client of ordinary code."""
    port, fields = request(kind, number)
    diary.note(number, kind, "sent")
    try:
        if kind in ("again", "once"):
            what = outcome_of_stream(number, list(client.stream(port, **fields, timeout_s=TIMEOUT_S)))
        else:
            answer = client.call(port, **fields, timeout_s=TIMEOUT_S)
            what = "answered" if is_right(number, answer) else "wrong answer"
    except slabwire.SlabwireError as error:
        what = f"error {error.code} {error}"
    diary.note(number, kind, what.replace("\n", " "))


def numbers(first: int, stop: Path) -> Iterator[tuple[str, int]]:
    """Until it is time to stop."""
    for count, kind in enumerate(itertools.cycle(KINDS)):
        if stop.exists():
            return
        yield kind, first + STEP * count


async def talk(where: str, diary: Diary, first: int, stop: Path) -> None:
    todo = numbers(first, stop)
    async with slabwire.connect_async(where, wait_s=30.0) as client:

        async def work() -> None:
            for kind, number in todo:
                await call(client, diary, kind, number)
                await asyncio.sleep(0.01)

        await asyncio.gather(*(work() for _ in range(AT_ONCE)))


def talk_in_threads(where: str, diary: Diary, first: int, stop: Path) -> None:
    todo, lock = numbers(first, stop), threading.Lock()
    pause = threading.Event()
    with slabwire.connect(where, wait_s=30.0) as client:

        def work() -> None:
            while True:
                with lock:
                    kind, number = next(todo, ("", 0))
                if not kind:
                    return
                call_and_wait(client, diary, kind, number)
                pause.wait(0.01)

        threads = [threading.Thread(target=work) for _ in range(AT_ONCE)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()


if __name__ == "__main__":
    how, place, own_diary, own_first, until = sys.argv[1:]
    if how == "async":
        asyncio.run(talk(place, Diary(own_diary), int(own_first), Path(until)))
    else:
        talk_in_threads(place, Diary(own_diary), int(own_first), Path(until))
