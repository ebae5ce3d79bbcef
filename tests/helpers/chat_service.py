"""The chat graph as it is deployed, for tests: started, asked through OpenAI's own client, its workers killed."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai
import pytest

from slabwire import Graph
from slabwire.actors.ingress import Ingress
from slabwire.actors.llm import LanguageModel
from slabwire.actors.prompt_cache import PrefixCache, ResponseCache
from waiting import wait_until, worker_of

MODEL = "smollm2-135m-instruct"
PATH = "/v1/chat/completions"


def user(content: str) -> Any:
    return [{"role": "user", "content": content}]


def chat_graph(model: str | None, port: int, *, requests: int = 48, **settings: Any) -> Graph:
    """The graph of examples/chat.py. `requests` is the ingress's limit, `settings` are the language model's."""
    graph = Graph("chat")
    llm = graph.add(LanguageModel, name="llm", model=model, prefixes="prefixes", cores=1, **settings)
    graph.add(PrefixCache, name="prefixes")
    cache = graph.add(ResponseCache, name="cache", model="llm", prefixes="prefixes")
    ingress = graph.add(Ingress, name="ingress", models={MODEL: "cache"}, port=port, requests=requests)
    graph.expose(llm.chat, cache.chat, cache.describe, ingress.describe)
    return graph


@contextmanager
def serving(
    folder: Path, model: str | None = None, *, cache: Path | None = None, drain_timeout_s: float = 10.0, **settings: Any
) -> Iterator[ChatService]:
    """A chat graph that runs, with all that it writes in `folder`; converted models are kept in `cache`, if given."""
    folders = {"RUN": folder / "run", "STATE": folder / "state", "CACHE": cache or folder / "cache"}
    with pytest.MonkeyPatch.context() as patch:
        for name, each in folders.items():
            patch.setenv(f"SLABWIRE_{name}_DIR", str(each))
        with chat_graph(model, free_port(), **settings).run(drain_timeout_s=drain_timeout_s) as running:
            yield ChatService(running)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


class ChatService:
    """What a client needs to know of a chat graph, and what a test wants to do to it."""

    def __init__(self, running: Any) -> None:
        self.running = running
        told = running.client.call("ingress.describe")
        self.url: str = told["url"]
        self.certificate = Path(told["certificate"])
        self.trust = ssl.create_default_context(cafile=self.certificate)
        self.describe()  # from now on the client holds all that it needs to ask: a test finds nothing more

    # -- clients -------------------------------------------------------------------------------------------------------

    @contextmanager
    def client(self) -> Iterator[openai.OpenAI]:
        """OpenAI's own; it trusts this server's certificate and no other, and asks once."""
        transport = openai.DefaultHttpxClient(verify=self.trust, trust_env=False)
        with openai.OpenAI(
            base_url=f"{self.url}/v1", api_key="any", max_retries=0, http_client=transport, timeout=100
        ) as client:
            yield client

    @contextmanager
    def connection(self) -> Iterator[http.client.HTTPSConnection]:
        connection = http.client.HTTPSConnection(self.url.removeprefix("https://"), context=self.trust)
        try:
            yield connection
        finally:
            connection.close()

    def get(self, path: str) -> tuple[int, str]:
        """Status and body."""
        with self.connection() as connection:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()

    def post(self, body: str | bytes) -> tuple[int, Any]:
        """Status and JSON of a chat request with this body."""
        with self.connection() as connection:
            connection.request("POST", PATH, body, {"content-type": "application/json"})
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())

    @contextmanager
    def stream(self, messages: Any, **fields: Any) -> Iterator[RawStream]:
        """The events of a streamed answer, as they come from the connection."""
        body = {"model": MODEL, "messages": messages, "temperature": 0, "stream": True, **fields}
        with self.connection() as connection:
            connection.request("POST", PATH, json.dumps(body), {"content-type": "application/json"})
            yield RawStream(connection.getresponse())

    def ask(self, messages: Any, **fields: Any) -> Answer:
        """A whole answer, streamed, at temperature 0 where nothing else is said."""
        wanted = {"temperature": 0, "max_tokens": 16, "stream_options": {"include_usage": True}, **fields}
        with self.client() as client:
            return read(client.chat.completions.create(model=MODEL, messages=messages, stream=True, **wanted))

    # -- what goes on in it --------------------------------------------------------------------------------------------

    def describe(self) -> dict[str, Any]:
        """What the model says of itself, and the caches."""
        told: dict[str, Any] = self.running.client.call("cache.describe")
        return told

    def answers(self, running: int, waiting: int = 0) -> bool:
        """Whether the model is busy with so many answers at this moment."""
        told = self.describe()
        return (told["running"], told["waiting"]) == (running, waiting)

    def wait_idle(self) -> None:
        """Waits until nobody is being answered, not even one who has left."""
        wait_until(lambda: self.running.client.call("ingress.describe")["running"] == 0 and self.answers(0))

    def wait_for_pages(self, least: int = 1) -> int:
        """Waits until the cache holds so many pages, which the model offers when an answer has ended."""

        def pages() -> int:
            held = int(self.describe()["cache"]["prefixes_pages"])
            return held if held >= least else 0

        return int(wait_until(pages))

    def pid(self, name: str) -> int:
        return int(worker_of(self.running, name)["pid"])

    def kill(self, name: str, pid: int | None = None) -> int:
        """Kills a worker, or that process of it; its id."""
        pid = pid or self.pid(name)
        os.kill(pid, signal.SIGKILL)
        return pid

    def successor(self, name: str, killed: int) -> int:
        """The process that follows the one that was killed, as soon as there is one; it may still be starting."""
        return int(wait_until(lambda: (pid := self.pid(name)) != killed and pid))

    def wait_ready(self, name: str, killed: int) -> None:
        wait_until(lambda: (each := worker_of(self.running, name))["state"] == "ready" and each["pid"] != killed)

    def replace(self, name: str) -> None:
        """Kills a worker, and waits until its successor is ready."""
        self.wait_ready(name, self.kill(name))


@dataclass
class Answer:
    """A whole answer, put together from its chunks."""

    text: str
    finish_reason: str | None
    usage: Any

    @property
    def cached_tokens(self) -> int:
        return int(self.usage.prompt_tokens_details.cached_tokens)


def read(stream: Any) -> Answer:
    """All that is left of a stream of one choice that tells its usage."""
    text, reason, usage = "", None, None
    for chunk in stream:
        usage = chunk.usage or usage
        for choice in chunk.choices:
            text += choice.delta.content or ""
            reason = choice.finish_reason or reason
    return Answer(text, reason, usage)


class RawStream:
    """A response that is a stream of events."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self._response = response

    def until_text(self) -> str:
        """Reads up to the first chunk that has a word, which it gives."""
        return str(next(filter(None, (_content(event) for event in self._events()))))

    def rest(self) -> list[Any]:
        """All further events, "[DONE]" included. A connection that breaks off ends them."""
        try:
            return list(self._events())
        except (http.client.IncompleteRead, OSError):
            return ["broken"]

    def _events(self) -> Iterator[Any]:
        for line in iter(self._response.readline, b""):
            if line.startswith(b"data: "):
                data = line.removeprefix(b"data: ").strip()
                yield data.decode() if data == b"[DONE]" else json.loads(data)


def _content(event: Any) -> str:
    return "".join(choice["delta"].get("content") or "" for choice in event.get("choices", ()))
