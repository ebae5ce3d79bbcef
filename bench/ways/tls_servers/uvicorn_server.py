"""uvicorn with httptools, on asyncio."""

from __future__ import annotations

import starlette  # noqa: F401  left out where it is not installed
import uvicorn  # noqa: F401

from .command_server import CommandServer

TARGET = f"{__package__}.application:application"


class Uvicorn(CommandServer):
    name = "uvicorn"
    title = "uvicorn, asyncio"
    module = ".uvicorn_server"
    target = TARGET
