"""The HTTP application: which path leads where, and what becomes of errors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, ExceptionHandler

from ...runtime.errors import SlabwireError
from ...runtime.spelling import did_you_mean
from .openai.completions import ChatCompletions
from .openai.models import Models
from .openai.seats import Seats
from .probes.page import page
from .probes.probes import Probes
from .probes.readiness import Readiness
from .probes.supervisor import GraphMetrics, Supervisor
from .requests.limits import Limits
from .requests.metrics import Metrics
from .requests.origin_check import Hosts, OriginCheck
from .requests.parameters import named
from .requests.problems import Problem, problem_of, response_to
from .requests.request_id import Identified, request_id
from .requests.serving import Ask, ServingState


def build_application(
    ask: Ask,
    models: Mapping[str, str],
    *,
    hosts: Hosts,
    limits: Limits,
    state: ServingState,
    metrics: Metrics,
    graph: GraphMetrics | None = None,
    seats: Seats | None = None,
    supervisor: Supervisor | None = None,
) -> ASGIApp:
    """An ASGI application that answers in OpenAI's interface. `models`: the actor that serves each, by public name.

    `graph`: what /metrics has beside `metrics`. `supervisor`: whom readiness asks beside the models.
    """
    readiness = Readiness(ask, models, state, metrics.roster, supervisor=supervisor)
    completions = ChatCompletions(ask, models, limits, state, metrics, seats or Seats({}))
    routes = _routes(completions, Models(models, readiness), Probes(readiness, metrics, graph))
    handlers: dict[Any, ExceptionHandler] = {
        HTTPException: _no_such_route([route.path.replace(":path}", "}") for route in routes]),
        SlabwireError: _failed,
        Exception: _failed,
    }
    application = Starlette(routes=routes, exception_handlers=handlers)
    application.router.redirect_slashes = False
    return Identified(OriginCheck(_Contained(application), hosts))


def _routes(completions: ChatCompletions, models: Models, probes: Probes) -> list[Route]:
    return [
        Route("/v1/chat/completions", completions, methods=["POST"]),
        Route("/v1/models", models.list),
        Route("/v1/models/{model:path}", models.one),
        Route("/livez", probes.live),
        Route("/readyz", probes.ready),
        Route("/healthz", probes.ready),
        Route("/health", probes.ready),
        Route("/startupz", probes.started),
        Route("/version", probes.version),
        Route("/metrics", probes.metrics),
        Route("/", page),
    ]


class _Contained:
    """Lets no error out to the server: Starlette raises again what `_failed` has answered and logged."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            await self._app(scope, receive, send)
        except Exception:
            if scope["type"] != "http":
                raise


async def _failed(request: Request, error: Exception) -> Response:
    return response_to(problem_of(error, request_id(request.scope)))


def _no_such_route(paths: list[str]) -> ExceptionHandler:
    async def answer(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        path, method = named(request.url.path), request.method
        if error.status_code == 405:
            allowed = dict(error.headers or {})
            message = f"{path} does not take {method}; it takes {allowed.get('Allow', 'another method')}."
            return response_to(Problem(405, message, "method_not_allowed", headers=allowed))
        hint = did_you_mean(request.url.path[:100], paths) or f"; there are {', '.join(paths)}"
        return response_to(Problem(404, f"There is no {path} here{hint}", "not_found"))

    return answer
