"""uvicorn on asyncio, with httptools."""

from __future__ import annotations

from typing import ClassVar

import uvicorn

from .asgi_server import AsgiServer, Served
from .token_source import SourceApart, Tickers, TokenSource


class Uvicorn(AsgiServer):
    name = "uvicorn"
    title = "uvicorn, asyncio"
    module = "uvicorn_server"
    source: ClassVar[type[TokenSource]] = SourceApart


class UvicornInside(Uvicorn):
    name = "uvicorn_inside"
    title = "uvicorn, asyncio, source inside"
    source: ClassVar[type[TokenSource]] = Tickers


def serve(served: Served, loop: str = "asyncio") -> None:
    uvicorn.run(
        served.target,
        host=served.host,
        port=served.port,
        ssl_certfile=served.chain,
        ssl_keyfile=served.key,
        workers=served.processes,
        backlog=served.backlog,
        loop=loop,
        http="httptools",
        access_log=False,
        log_level="error",
    )
