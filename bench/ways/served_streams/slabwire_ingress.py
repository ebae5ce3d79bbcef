"""Ours: an actor that publishes a token of each of its reply streams a step, and the ingress."""

from __future__ import annotations

import os
from itertools import count
from time import monotonic_ns
from types import TracebackType
from typing import Any, ClassVar, Self
from urllib.parse import urlsplit

from ....actors.ingress import Ingress
from ....actors.ingress.certificates.certificate import Certificate
from ....runtime.actor.actor import Actor
from ....runtime.actor.reply_stream import ReplyStream
from ....runtime.launch.graph import Graph
from ....runtime.launch.running import start
from ...harness.load import Load
from ...harness.process import processes_of
from ..many_streams.item import mark_of, stamp_of
from ..many_streams.pacing import BatchedPacing, batches_of
from .asked import asked_by
from .server import MODEL, SPARE, Pids, Steps

# Of the graphs of this process, whose names must differ while they run.
_numbers = count()


class Source(BatchedPacing, Actor):
    """A chat model that answers everybody, a token each a step."""

    def __init__(self, pace: float, batches: int) -> None:
        super().__init__(batches)
        self.pace = pace
        self._open: list[dict[ReplyStream[dict[str, Any]], None]] = [{} for _ in range(batches)]

    def chat(
        self,
        messages: list[dict[str, Any]],
        max_tokens: int | None = None,  # noqa: ARG002  the port of every chat model
        temperature: float = 1.0,  # noqa: ARG002
        top_p: float = 1.0,  # noqa: ARG002
        seed: int | None = None,  # noqa: ARG002
        stop: list[str] | None = None,  # noqa: ARG002
        logprobs: int | None = None,  # noqa: ARG002
    ) -> ReplyStream[dict[str, Any]]:
        stream, asked = self.reply_stream(), asked_by(messages[0]["content"])
        stream.tag = mark_of(asked.number)
        stream.send({"prompt_tokens": 1})
        if asked.briefly:
            stream.send({"text": stamp_of(monotonic_ns()) + stream.tag, "tokens": 1})
            stream.send({"finish_reason": "length", "prompt_tokens": 1, "completion_tokens": 1, "cached_tokens": 0})
            stream.end()
        else:
            batch = self._open[asked.number % len(self._open)]
            stream.add_done_callback(batch.pop)
            batch[stream] = None
        return stream

    def describe(self) -> dict[str, Any]:
        running = sum(map(len, self._open))
        return {"model": MODEL, "created": 1, "running": running, "waiting": 0, "slots": running + 1}

    def _step_batch(self, batch: int, stamp: str) -> None:
        self.publish(
            [
                (each, {"text": stamp + each.tag, "tokens": 1})
                for each in self._open[batch]
                if each.room or self._misses(each.tag)
            ]
        )

    def _misses(self, mark: str) -> bool:
        """A stream without room does without a token of this step."""
        self.missed[int(mark)] += 1
        return False


class SlabwireIngress:
    name: ClassVar[str] = "slabwire"
    title: ClassVar[str] = "Slabwire's ingress"
    answers_briefly: ClassVar[bool] = True

    def __init__(self, load: Load, certificate: Certificate, processes: int) -> None:
        graph, places = Graph(f"bench-ingress-{os.getpid()}-{next(_numbers)}"), load.streams + SPARE
        # New connections are not shared out evenly: each process has room for all of them, also at the source.
        source = graph.add(
            Source,
            name="source",
            pace=load.pace,
            batches=batches_of(load.streams),
            concurrency=places * processes,
        )
        ingress = graph.add(
            Ingress,
            name="ingress",
            models={MODEL: "source"},
            port=0,
            certificate=str(certificate.public),
            key=str(certificate.key),
            requests=places,
            connections=places,
            calls=places,
            replicas=processes,
            tickets=self._add_keys(graph),
        )
        graph.expose(source.steps, ingress.describe)
        self._running = start(graph.validate())
        try:
            self._client = self._running.client
            self.port = urlsplit(self._client.call("ingress.describe")["url"]).port or 0
        except BaseException:
            self._running.kill()
            raise

    def _add_keys(self, graph: Graph) -> str | None:  # noqa: ARG002
        """The actor that keeps the keys of session tickets, if there is one."""
        return None

    def pids(self) -> Pids:
        found: Pids = {"serving": [], "source": [], "rest": []}
        for name, pid in processes_of(self._running).items():
            kind = "source" if name == "source" else "serving" if name.startswith("ingress") else "rest"
            found[kind].append(pid)
        return found

    def steps(self, count: int, pace: float | None = None) -> Steps:
        made = self._client.call("source.steps", count, pace, timeout_s=None)
        return Steps(made["began_ns"], made["ended_ns"], sum(missed for _, missed in made["missed"]))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._running.stop()
        else:
            self._running.kill()
