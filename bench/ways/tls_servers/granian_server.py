"""granian: HTTP and TLS in Rust."""

from __future__ import annotations

import granian  # noqa: F401  left out where it is not installed
import starlette  # noqa: F401

from .command_server import CommandServer
from .uvicorn_server import TARGET


class GranianServer(CommandServer):
    name = "granian"
    title = "granian"
    module = ".granian_server"
    target = TARGET
