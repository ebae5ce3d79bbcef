"""The HTTP server of `slabwire metrics --listen`: one request at a time, each asks the graph anew."""

from __future__ import annotations

import socket
from http.server import BaseHTTPRequestHandler, HTTPServer

from ..runtime.control.verbs import Metrics
from ..runtime.errors import SlabwireError, StartError
from ..runtime.telemetry.exposition import CONTENT_TYPE
from ..runtime.telemetry.metrics import metrics_text
from .rendering.choice import ask

# Who sends no request within this time, or takes no answer, holds up the next.
_TIMEOUT_S = 5.0


class MetricsServer(HTTPServer):
    """Answers GET /metrics. Raises StartError where it cannot listen."""

    def __init__(self, graph: str, host: str, port: int) -> None:
        self.graph = graph
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._host = f"[{host}]" if ":" in host else host
        try:
            super().__init__((host, port), _Scrape)
        except OSError as error:
            raise StartError(
                f"cannot listen at {self._host}:{port} ({error.strerror}); choose another port, or 0 for a free one"
            ) from None

    @property
    def url(self) -> str:
        return f"http://{self._host}:{self.server_port}/metrics"

    def server_bind(self) -> None:
        """Without HTTPServer's look-up of the host's full name, which may take seconds."""
        super(HTTPServer, self).server_bind()
        self.server_name, self.server_port = self._host, self.socket.getsockname()[1]


class _Scrape(BaseHTTPRequestHandler):
    server: MetricsServer
    timeout = _TIMEOUT_S

    def do_GET(self) -> None:
        """The metrics, or why there are none: 503 while the graph does not run, 404 for another path."""
        if self.path.partition("?")[0] != "/metrics":
            self._answer(404, "text/plain; charset=utf-8", "there is only /metrics here\n")
            return
        try:
            text = metrics_text(ask(self.server.graph, Metrics()))
        except SlabwireError as error:
            self._answer(503, "text/plain; charset=utf-8", f"{error}\n")
        else:
            self._answer(200, CONTENT_TYPE, text)

    def _answer(self, status: int, kind: str, text: str) -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name that http.server gives it
        """Says nothing: a scrape every few seconds is no news."""
