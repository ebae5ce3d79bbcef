"""uvicorn on uvloop, with httptools."""

from __future__ import annotations

from typing import ClassVar

import uvloop  # noqa: F401  left out where it is not installed

from . import uvicorn_server
from .asgi_server import AsgiServer, Served
from .token_source import SourceApart, Tickers, TokenSource


class UvicornUvloop(AsgiServer):
    name = "uvicorn_uvloop"
    title = "uvicorn, uvloop"
    module = "uvloop_server"
    source: ClassVar[type[TokenSource]] = SourceApart


class UvicornUvloopInside(UvicornUvloop):
    name = "uvicorn_uvloop_inside"
    title = "uvicorn, uvloop, source inside"
    source: ClassVar[type[TokenSource]] = Tickers


def serve(served: Served) -> None:
    uvicorn_server.serve(served, "uvloop")
