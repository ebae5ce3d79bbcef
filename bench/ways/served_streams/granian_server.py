"""granian: HTTP and TLS in Rust."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from granian import Granian
from granian.constants import HTTPModes, Interfaces

from .asgi_server import AsgiServer, Served
from .token_source import SourceApart, Tickers, TokenSource


class GranianServer(AsgiServer):
    name = "granian"
    title = "granian"
    module = "granian_server"
    source: ClassVar[type[TokenSource]] = SourceApart


class GranianInside(GranianServer):
    name = "granian_inside"
    title = "granian, source inside"
    source: ClassVar[type[TokenSource]] = Tickers


def serve(served: Served) -> None:
    Granian(
        served.target,
        address=served.host,
        port=served.port,
        interface=Interfaces.ASGI,
        workers=served.processes,
        http=HTTPModes.http1,
        websockets=False,
        backlog=served.backlog,
        backpressure=served.backlog,
        log_enabled=False,
        ssl_cert=Path(served.chain),
        ssl_key=Path(served.key),
    ).serve()
