"""uvicorn with httptools, on uvloop."""

from __future__ import annotations

import uvloop  # noqa: F401  left out where it is not installed

from .command_server import CommandServer
from .uvicorn_server import TARGET


class UvicornUvloop(CommandServer):
    name = "uvicorn_uvloop"
    title = "uvicorn, uvloop"
    module = ".uvloop_server"
    target = TARGET
