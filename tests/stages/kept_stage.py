"""Actors that keep memory beyond their death, and that listen."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

from slabwire import Actor, Group, Layout, Word

TALLY = Layout(
    "test tally",
    Group("rows", "the replica of that number", (Word("count", "how many", "all"),), rows="replicas", aligned=128),
    Group("notes", "the first replica", (Word("note", "a text", "all", nbytes=64),)),
)
OTHER = Layout("test other", Group("one", "anybody", (Word("x", "a number", "all"),)))
BIG = Layout("test big", Group("rows", "anybody", (Word("y", "a page", "all", nbytes=4096),), rows="pages"))


class Tally(Actor):
    """Counts in memory that it keeps."""

    def on_start(self) -> None:
        self.tally = self.keep("tally", TALLY, replicas=2)

    def add(self, n: int) -> list[int]:
        """Adds to the count of this replica; the counts of all."""
        words, placed = self.tally.words, self.tally.placed
        words[placed.word("count", self.tally.replica)] += n
        return [words[placed.word("count", row)] for row in range(placed.rows("count"))]

    def note(self, text: str) -> None:
        at = self.tally.placed["note"]
        self.tally.bytes[at : at + len(text)] = text.encode()

    def noted(self) -> str:
        at = self.tally.placed["note"]
        return bytes(self.tally.bytes[at : at + 64]).rstrip(b"\0").decode()

    def who(self) -> list[int]:
        return [self.tally.replica, os.getpid()]

    def die(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def again(self) -> bool:
        return self.keep("tally", TALLY, replicas=2) is self.tally

    def keep_other(self, name: str) -> int:
        return len(self.keep(name, OTHER).bytes)

    def keep_big(self, name: str, pages: int) -> int:
        return len(self.keep(name, BIG, pages=pages).bytes)

    def loan_bytes(self, nbytes: int) -> None:
        self.loan((nbytes,), "u1")

    def keep_nothing(self) -> None:
        self.keep("nothing", Layout("nothing"))


class Looks(Actor):
    """Reads what a Tally keeps."""

    def counts(self, owner: str) -> list[int]:
        kept = self.keep(f"{owner}.tally", TALLY, replicas=2)
        return [kept.words[kept.placed.word("count", row)] for row in range(2)]

    def write(self) -> None:
        self.keep("tally.tally", TALLY, replicas=2).words[16] = 1


class Door(Actor):
    """Answers each connection with its name and its process, if it accepts any. The first one also answers those of
    replica `also`.
    """

    def __init__(self, address: str = "", accepts: bool = True, also: int | None = None) -> None:
        self.address, self.accepts, self.also = address, accepts, also

    async def on_start(self) -> None:
        if self.also is not None and self.context.actor.endswith("[0]"):
            listener = self.listen(self.address, replica=self.also)
            self.servers = [await asyncio.start_server(self._answer, sock=listener)]
        if self.address and (self.accepts or self.context.actor.endswith("[1]")):
            await self.open(self.address)

    async def open(self, address: str) -> Any:
        """Where it listens."""
        listener = self.listen(address)
        self.servers = [*getattr(self, "servers", []), await asyncio.start_server(self._answer, sock=listener)]
        return listener.getsockname()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(1)
        writer.write(f"{self.context.actor} {os.getpid()}".encode())
        writer.close()

    def only_listen(self, address: str) -> Any:
        """Where it listens, and accepts nobody."""
        self.listener = self.listen(address)
        return self.listener.getsockname()

    def listen_at(self, addresses: list[str]) -> int:
        self.listeners = [self.listen(each) for each in addresses]
        return len(self.listeners)

    def who(self) -> list[Any]:
        return [self.context.actor, os.getpid()]

    def die(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)
