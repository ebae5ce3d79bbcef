"""uvicorn on uvloop, with httptools."""

from __future__ import annotations

import uvloop  # noqa: F401  left out where it is not installed

from . import uvicorn_server
from .asgi_server import AsgiServer, Served


class UvicornUvloop(AsgiServer):
    name = "uvicorn_uvloop"
    title = "uvicorn, uvloop"
    module = "uvloop_server"


def serve(served: Served) -> None:
    uvicorn_server.serve(served, "uvloop")
