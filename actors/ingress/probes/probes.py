"""Endpoints for those who watch the server: probes, its version, its metrics."""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from .... import __version__
from ..requests.metrics import Metrics
from .readiness import Readiness
from .supervisor import GraphMetrics


class Probes:
    """Liveness depends on the event loop alone, never on load or on other actors; readiness asks the models."""

    def __init__(self, readiness: Readiness, metrics: Metrics, graph: GraphMetrics | None) -> None:
        self._readiness = readiness
        self._metrics = metrics
        self._graph = graph
        if graph is not None:
            metrics.registry.register(graph)

    async def live(self, _: Request) -> JSONResponse:
        return JSONResponse({"status": "live"})

    async def ready(self, _: Request) -> JSONResponse:
        """200, or 503 with the reasons; each names the actor. How many replicas of the ingress do what goes with it."""
        return _verdict("ready", await self._readiness.reasons(), replicas=self._readiness.replicas)

    async def started(self, _: Request) -> JSONResponse:
        """200 once every model has answered, whatever becomes of it afterwards."""
        reasons = [] if self._readiness.started else await self._readiness.reasons()
        return _verdict("started", [] if self._readiness.started else reasons)

    async def version(self, _: Request) -> JSONResponse:
        return JSONResponse({"name": "slabwire", "version": __version__})

    async def metrics(self, request: Request) -> Response:
        if self._graph is None:
            await self._readiness.look()
        else:
            await asyncio.gather(self._readiness.look(), self._graph.look())
        self._metrics.show(self._readiness.described)
        text, kind = self._metrics.text(request.headers.get("accept", ""))
        return Response(text, headers={"content-type": kind})


def _verdict(good: str, reasons: list[str], **more: Any) -> JSONResponse:
    if reasons:
        return JSONResponse({"status": f"not {good}", "reasons": reasons, **more}, 503)
    return JSONResponse({"status": good, **more})
