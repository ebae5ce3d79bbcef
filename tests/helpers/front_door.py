"""An ingress in front of a graph, and a client of it."""

from __future__ import annotations

import asyncio
import http.client
import json
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from slabwire import Actor, Graph
from slabwire.actors.ingress import Ingress

HELLO = [{"role": "user", "content": "hello"}]


class Counts(Actor):
    """Says "one", waits for a file named "go", and says "two"."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)

    async def chat(
        self,
        messages: list[dict[str, Any]],
        max_tokens: int | None = None,
        temperature: float = 1.0,
        top_p: float = 1.0,
        seed: int | None = None,
        stop: list[str] | None = None,
        logprobs: int | None = None,
    ) -> AsyncIterator[dict[str, Any]]:
        try:
            yield {"prompt_tokens": 1}
            yield {"text": "one ", "tokens": 1}
            while not (self.folder / "go").exists():
                await asyncio.sleep(0.002)
            yield {"text": "two", "tokens": 1}
            yield {"finish_reason": "stop", "prompt_tokens": 1, "completion_tokens": 2, "cached_tokens": 0}
        except (GeneratorExit, asyncio.CancelledError):
            (self.folder / "cancelled").touch()
            raise

    async def describe(self) -> dict[str, Any]:
        return {"model": "counts", "created": 1, "context": 9, "slots": 1, "running": 0, "waiting": 0, "stats": {}}


class Watched(Ingress):
    """Tells how many tasks there are in its process."""

    async def tasks(self) -> int:
        return len(asyncio.all_tasks())


def counting(folder: Path, concurrency: int | None = None, **settings: Any) -> Graph:
    graph = Graph("counting")
    graph.add(Counts, name="counts", folder=str(folder), concurrency=concurrency)
    ingress = graph.add(Watched, name="ingress", models={"counter": "counts"}, **{"port": 0, **settings})
    graph.expose(ingress.describe, ingress.tasks)
    return graph


class Door:
    """What a client needs to know of an ingress that runs."""

    def __init__(self, running: Any) -> None:
        self.told: dict[str, Any] = running.client.call("ingress.describe")
        self.authority = self.told["url"].removeprefix("https://")
        self.context = ssl.create_default_context(cafile=self.told["certificate"])

    def connect(self) -> http.client.HTTPSConnection:
        return http.client.HTTPSConnection(self.authority, context=self.context)

    def get(self, path: str) -> tuple[int, Any]:
        connection = self.connect()
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()

    def chat(self) -> tuple[http.client.HTTPSConnection, http.client.HTTPResponse]:
        """A stream that has begun: its first word has come."""
        connection = self.connect()
        body = json.dumps({"model": "counter", "messages": HELLO, "stream": True})
        connection.request("POST", "/v1/chat/completions", body, {"content-type": "application/json"})
        answer = connection.getresponse()
        while b"one" not in answer.readline():
            continue
        return connection, answer
