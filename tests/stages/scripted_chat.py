"""A chat actor that follows a script, and clients that talk to the ingress before it without a network."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import openai
import uvicorn

from slabwire.actors.ingress.application import build_application
from slabwire.actors.ingress.requests.asgi import Application, Message
from slabwire.actors.ingress.requests.limits import Limits
from slabwire.actors.ingress.requests.metrics import Metrics
from slabwire.actors.ingress.requests.origin_check import Hosts
from slabwire.actors.ingress.requests.serving import ServingState
from slabwire.runtime.actor.stream_group import IncomingStream, OnItems, StreamGroup
from slabwire.runtime.errors import DeadlineExceeded

MODELS = {"smol": "cache"}
HELLO: Any = [{"role": "user", "content": "Hello"}]
ACCEPTED = {"prompt_tokens": 7}
END = {"finish_reason": "stop", "prompt_tokens": 7, "completion_tokens": 2, "cached_tokens": 3}
# A script: items to yield, errors to raise, events to wait for.
GREETING: tuple[Any, ...] = (ACCEPTED, {"text": "Hi", "tokens": 1}, {"text": " you", "tokens": 1}, END)


class ScriptedChat:
    """Stands for an actor that asks others. `scripts`: one for each stream, in order; the last serves all further."""

    def __init__(self, *scripts: tuple[Any, ...], described: Any = None) -> None:
        self.scripts = list(scripts or (GREETING,))
        self.described = described or {"model": "smol", "created": 1700000000, "running": 2, "waiting": 3, "slots": 8}
        self.asked: list[dict[str, Any]] = []
        self.calls: list[str] = []
        self.open = 0
        self.group: ScriptedStreams  # of all streams

    def streams(self, on_items: OnItems | None = None) -> StreamGroup:
        assert on_items is not None
        self.group = ScriptedStreams(self, on_items)
        return self.group

    def begin(self, target: str, fields: dict[str, Any]) -> AsyncGenerator[Any, None]:
        self.asked.append({"target": target, **fields})
        script = self.scripts.pop(0) if len(self.scripts) > 1 else self.scripts[0]
        return self._play(script)

    async def call(self, target: str, /, *args: Any, timeout_s: float | None = None, **fields: Any) -> Any:
        self.calls.append(target)
        if isinstance(self.described, asyncio.Event):
            await self.described.wait()
        if isinstance(self.described, Exception):
            raise self.described
        return self.described

    async def _play(self, script: tuple[Any, ...]) -> AsyncGenerator[Any, None]:
        self.open += 1
        try:
            for step in script:
                if isinstance(step, asyncio.Event):
                    await step.wait()
                elif isinstance(step, Exception):
                    raise step
                else:
                    yield step
        finally:
            self.open -= 1


class ScriptedStreams(StreamGroup):
    """Streams that follow scripts, each played by a task."""

    def __init__(self, chat: ScriptedChat, on_items: OnItems) -> None:
        self._chat = chat
        self._on_items = on_items
        self.begun: list[ScriptedStream] = []

    def bring(self, items: list[list[Any]]) -> None:
        """One pass: what has come of each of the streams, in the order of their beginnings, beside their scripts."""
        for stream, each in zip(self.begun, items, strict=True):
            if not stream.is_over:
                self._on_items(stream, each)

    def begin(self, target: str, /, *args: Any, timeout_s: float | None = None, **fields: Any) -> IncomingStream:
        stream = ScriptedStream()
        stream.task = asyncio.ensure_future(self._play(stream, self._chat.begin(target, fields)))
        self.begun.append(stream)
        if timeout_s is not None:
            asyncio.get_running_loop().call_later(timeout_s, self._expire, stream)
        return stream

    def _expire(self, stream: ScriptedStream) -> None:
        if not stream.is_over:
            stream.cancel()
            stream.error = DeadlineExceeded("cache.chat did not answer in time")
            self._on_items(stream, [])

    async def _play(self, stream: ScriptedStream, items: AsyncGenerator[Any, None]) -> None:
        async with aclosing(items):
            try:
                async for item in items:
                    await stream.goes_on.wait()
                    self._on_items(stream, [item])
            except Exception as error:
                stream.error = error
            stream.is_over = True
            self._on_items(stream, [])

    def __len__(self) -> int:
        return self._chat.open

    def __aiter__(self) -> Any:
        raise NotImplementedError

    async def __anext__(self) -> Any:
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError


class ScriptedStream(IncomingStream):
    def __init__(self) -> None:
        self.tag = None
        self.is_over = False
        self.error: BaseException | None = None
        self.goes_on = asyncio.Event()
        self.goes_on.set()
        self.task: asyncio.Task[None]

    def cancel(self) -> None:
        self.is_over = True
        self.task.cancel()

    def pause(self) -> None:
        self.goes_on.clear()

    def resume(self) -> None:
        self.goes_on.set()


class Ingress:
    """The application over a scripted actor."""

    def __init__(self, *scripts: tuple[Any, ...], described: Any = None, graph: Any = None, **limits: Any) -> None:
        self.chat = ScriptedChat(*scripts, described=described)
        self.state = ServingState()
        self.metrics = Metrics(MODELS)
        hosts, allowed = Hosts(["chat.example"]), Limits(**limits)
        self.app: Application = build_application(
            self.chat, MODELS, hosts=hosts, limits=allowed, state=self.state, metrics=self.metrics, graph=graph
        )

    async def get(self, path: str, **headers: str) -> Exchange:
        return await Exchange(self.app, "GET", path, b"", headers).done()

    async def exchange(self, path: str, method: str = "GET", **scope: Any) -> Exchange:
        return await Exchange(self.app, method, path, b"", {}, scope=scope).done()

    def begin(self, **body: Any) -> Exchange:
        """A chat request that is on its way."""
        return Exchange(self.app, "POST", "/v1/chat/completions", json.dumps(chat_body(**body)).encode(), {})

    def upload(self, body: bytes) -> Exchange:
        """A chat request of whose body only the beginning has come in: `end` gives the rest."""
        return Exchange(self.app, "POST", "/v1/chat/completions", body, {}, whole=False)

    async def post(self, body: bytes | None = None, headers: dict[str, str] | None = None, **fields: Any) -> Exchange:
        sent = json.dumps(chat_body(**fields)).encode() if body is None else body
        return await Exchange(self.app, "POST", "/v1/chat/completions", sent, headers or {}).done()


def chat_body(**fields: Any) -> dict[str, Any]:
    return {"model": "smol", "messages": HELLO, **fields}


class Exchange:
    """One request over ASGI, as a task that runs while the test looks at what has been sent."""

    def __init__(
        self,
        app: Application,
        method: str,
        path: str,
        body: bytes,
        headers: dict[str, str],
        *,
        whole: bool = True,
        scope: dict[str, Any] | None = None,
    ) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = b""
        self.complete = False
        self._news = asyncio.Condition()
        self._incoming: asyncio.Queue[Message] = asyncio.Queue()
        halves = body[: len(body) // 2], body[len(body) // 2 :]
        self._incoming.put_nowait({"type": "http.request", "body": halves[0], "more_body": True})
        self._incoming.put_nowait({"type": "http.request", "body": halves[1], "more_body": not whole})
        given = [(name.lower().replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
        whole_scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "scheme": "https",
            "server": ("localhost", 8443),
            "headers": given,
            **(scope or {}),
        }
        self.task = asyncio.ensure_future(app(whole_scope, self._incoming.get, self._send))

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> Any:
        return self.json["error"]

    @property
    def events(self) -> list[Any]:
        """Every chunk of a stream; the rest of it, such as pings, is left out."""
        blocks = self.body.decode().split("\n\n")
        data = [block.removeprefix("data: ") for block in blocks if block.startswith("data: ")]
        return [each if each == "[DONE]" else json.loads(each) for each in data]

    async def _send(self, message: Message) -> None:
        async with self._news:
            if message["type"] == "http.response.start":
                self.status = message["status"]
                self.headers = {name.decode(): value.decode() for name, value in message["headers"]}
            else:
                self.body += message["body"]
                self.complete = not message.get("more_body", False)
            self._news.notify_all()

    async def until(self, text: bytes) -> None:
        """Waits until the body holds these bytes."""
        async with self._news:
            await self._news.wait_for(lambda: text in self.body)

    def end(self, body: bytes) -> None:
        """The last of the body comes in."""
        self._incoming.put_nowait({"type": "http.request", "body": body, "more_body": False})

    def leave(self) -> None:
        """The client closes its connection."""
        self._incoming.put_nowait({"type": "http.disconnect"})

    async def done(self) -> Exchange:
        await self.task
        return self


@asynccontextmanager
async def served(ingress: Ingress) -> AsyncIterator[openai.AsyncOpenAI]:
    """OpenAI's own client, and the application behind a real HTTP server on the loopback."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = uvicorn.Config(ingress.app, lifespan="off", log_config=None, access_log=False, ws="none")
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        while not server.started:
            await asyncio.sleep(0.001)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        transport = openai.DefaultAsyncHttpxClient(trust_env=False)
        try:
            async with openai.AsyncOpenAI(base_url=url, api_key="any", max_retries=0, http_client=transport) as client:
                yield client
        finally:
            server.should_exit = True
            await serving
