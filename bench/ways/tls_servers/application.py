"""The application of the peers that serve ASGI, by Starlette."""

from __future__ import annotations

from collections.abc import AsyncIterator

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from .answer import LARGE_NBYTES, LARGE_PATH, PIECE, SMALL, SMALL_PATH, SMALL_TYPE


async def _small(_: Request) -> Response:
    return Response(SMALL, media_type=SMALL_TYPE)


async def _large(_: Request) -> StreamingResponse:
    headers = {"content-length": str(LARGE_NBYTES)}
    return StreamingResponse(_pieces(), media_type="application/octet-stream", headers=headers)


async def _pieces() -> AsyncIterator[bytes]:
    for _ in range(LARGE_NBYTES // len(PIECE)):
        yield PIECE


application = Starlette(routes=[Route(SMALL_PATH, _small), Route(LARGE_PATH, _large)])
