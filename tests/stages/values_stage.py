"""Actors that send and receive values of every kind, by every way out of an actor."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from slabwire import Actor, Output, batched
from values_table import described, made


class Probe(Actor):
    """Says what arrives."""

    def tell(self, value: Any) -> str:
        return described(value)

    def hear(self, value: Any) -> str:
        return described(value)


class Sender(Actor):
    """Sends what is asked for, by every way out of an actor."""

    def answer(self, kind: str, place: str) -> Any:
        return made(kind, place)

    async def answer_late(self, kind: str, place: str) -> Any:
        return made(kind, place)

    @batched(max_size=2, max_wait_s=0.0)
    def answer_many(self, wanted: list[Any]) -> list[Any]:
        return [made(*each) for each in wanted]

    def items(self, kind: str, place: str) -> Iterator[Any]:
        yield made(kind, place)

    def forward(self, kind: str, place: str) -> Any:
        return made(kind, place)

    async def calls(self, kind: str, place: str) -> str:
        told: str = await self.call("probe.tell", made(kind, place))
        return told


class Emitter(Actor):
    sent = Output(Any)

    def emits(self, kind: str, place: str) -> None:
        self.emit("sent", made(kind, place))
