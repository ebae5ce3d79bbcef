"""A graph inside a FastAPI service: its lifespan starts and stops the graph, one endpoint calls, one streams.

    python examples/fastapi_service.py            # or: uvicorn --app-dir examples fastapi_service:app

Then `curl -d '{"text": "to be or not to be"}' -H 'content-type: application/json' localhost:8000/count`, or `/words`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel

from slabwire import Actor, Graph, SlabwireError


class Words(Actor):
    """Two processes of their own, so that long texts hold up neither the event loop nor each other."""

    def count(self, text: str) -> dict[str, int]:
        return dict(Counter(text.lower().split()))

    def each(self, text: str) -> Iterator[str]:
        yield from text.split()


class Text(BaseModel):
    text: str


graph = Graph("fastapi")
words = graph.add(Words, replicas=2)
graph.expose(words.count, words.each)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with graph.run() as running:  # the server keeps its own signal handlers
        app.state.client = running.client
        yield


app = FastAPI(lifespan=lifespan)


@app.exception_handler(SlabwireError)
async def failed(_: Request, error: SlabwireError) -> JSONResponse:
    return JSONResponse({"error": error.code, "text": str(error)}, error.http_status)


@app.post("/count")
async def count(body: Text, request: Request) -> dict[str, int]:
    answer: dict[str, int] = await request.app.state.client.call("words.count", body.text, timeout_s=10)
    return answer


@app.post("/words")
async def each_word(body: Text, request: Request) -> StreamingResponse:
    async def lines() -> AsyncIterator[str]:
        async for word in request.app.state.client.stream("words.each", body.text, timeout_s=60):
            yield json.dumps(word) + "\n"  # whoever hangs up cancels the rest

    return StreamingResponse(lines(), media_type="application/x-ndjson")


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=8000)
