"""The chat graph of examples/chat.py, with a way in at each of its floors."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from time import monotonic_ns
from typing import Any, Self

from ...actors.ingress import Ingress
from ...actors.ingress.requests.together import all_of
from ...actors.llm import LanguageModel
from ...actors.prompt_cache import PrefixCache, ResponseCache
from ...runtime.clients.async_client import AsyncClient
from ...runtime.launch.graph import Graph
from ...runtime.launch.running import start
from ..harness.answers import Answer
from ..harness.contestant import BenchError
from ..harness.conversations import Messages
from ..harness.process import Clock

MODEL = "model"
# A process that uses less than this in a look sleeps, but for what the look itself wakes.
_LOOK_S, _ASLEEP_NS = 0.05, 500_000


def build(name: str, replicas: int = 1) -> Graph:
    """Ports exposed: llm.chat, llm.describe, cache.chat, ingress.describe."""
    graph = Graph(name)
    llm = graph.add(LanguageModel, name="llm", prefixes="prefixes", cores=1, replicas=replicas)
    graph.add(PrefixCache, name="prefixes")
    cache = graph.add(ResponseCache, name="cache", model="llm", prefixes="prefixes")
    ingress = graph.add(Ingress, name="ingress", models={MODEL: "cache"}, port=0)
    graph.expose(llm.chat, llm.describe, cache.chat, ingress.describe)
    return graph


class ChatGraph:
    """It runs while a `with` lasts, however that ends."""

    def __init__(self, replicas: int = 1) -> None:
        self._running = start(build(f"bench-chat-{os.getpid()}", replicas).validate())
        try:
            workers = self._running.status()["workers"]
        except BaseException:
            self._running.kill()
            raise
        self.name = self._running.name
        self.pids: dict[str, int] = {each["name"]: each["pid"] for each in workers}
        self.pids["supervisor"] = self._running.pid
        self.cpus: dict[str, list[int]] = {each["name"]: each["cores"] for each in workers}

    async def quiet(self) -> None:
        """Waits until all of its processes sleep: after an answer its keys and values still go to "prefixes"."""
        before = self.clocks()
        while True:
            await asyncio.sleep(_LOOK_S)
            now = self.clocks()
            if all((now[name] - before[name]).ran_ns < _ASLEEP_NS for name in now):
                return
            before = now

    def clocks(self) -> dict[str, Clock]:
        """By process."""
        return {name: Clock.of(pid) for name, pid in self.pids.items()}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *others: object) -> None:
        if kind is None:
            self._running.stop()
        else:
            self._running.kill()


class PortStream:
    """Asks an actor's chat port by the client SDK."""

    def __init__(self, name: str, client: AsyncClient) -> None:
        self.name = name
        self.title = f"{name}.chat"
        self._client = client

    async def ask(self, conversations: Sequence[Messages], max_tokens: int, temperature: float) -> list[Answer]:
        """All at once."""
        return await all_of(self._ask(each, max_tokens, temperature) for each in conversations)

    async def _ask(self, messages: Messages, max_tokens: int, temperature: float) -> Answer:
        began_ns = monotonic_ns()
        pieces, texts = [], []
        item: dict[str, Any] = {}
        async for item in self._client.stream(self.title, messages, max_tokens=max_tokens, temperature=temperature):
            if item.get("text"):
                pieces.append(monotonic_ns())
                texts.append(item["text"])
        if "finish_reason" not in item:
            raise BenchError(f"{self.title} ended its answer without saying why")
        usage = (item["prompt_tokens"], item["completion_tokens"], item["cached_tokens"])
        return Answer(began_ns, pieces, "".join(texts), *usage)
