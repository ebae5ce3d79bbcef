"""The HTTP application: which path leads where, and what becomes of errors."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from typing import TypeAlias

from ...runtime.spelling import did_you_mean
from .openai.completions import ChatCompletions
from .openai.models import Models
from .openai.seats import Seats
from .probes.page import page
from .probes.probes import Probes
from .probes.readiness import Readiness
from .probes.supervisor import GraphMetrics, Supervisor
from .requests.asgi import Receive, Scope, Send
from .requests.exchange import Exchange
from .requests.limits import Limits
from .requests.metrics import Metrics
from .requests.origin_check import Hosts, OriginCheck
from .requests.parameters import named
from .requests.problems import Problem, problem_of
from .requests.serving import Ask, ServingState

Endpoint: TypeAlias = Callable[[Exchange], Awaitable[None]]

_MODELS = "/v1/models"
_READS, _POSTS = ("GET", "HEAD"), ("POST",)


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
) -> Application:
    """Answers in OpenAI's interface. `models`: the actor that serves each, by public name.

    `graph`: what /metrics has beside `metrics`. `supervisor`: whom readiness asks beside the models.
    """
    readiness = Readiness(ask, models, state, metrics.roster, supervisor=supervisor)
    completions = ChatCompletions(ask, models, limits, state, metrics, seats or Seats({}))
    return Application(completions, Models(models, readiness), Probes(readiness, metrics, graph), OriginCheck(hosts))


class Application:
    """An ASGI application. It answers every request itself, errors among them, and lets none out to the server."""

    def __init__(self, completions: ChatCompletions, models: Models, probes: Probes, origins: OriginCheck) -> None:
        self._model = models.one
        self._origins = origins
        self._posts: dict[str, Endpoint] = {"/v1/chat/completions": completions}
        self._reads: dict[str, Endpoint] = {
            _MODELS: models.list,
            "/livez": probes.live,
            "/readyz": probes.ready,
            "/healthz": probes.ready,
            "/health": probes.ready,
            "/startupz": probes.started,
            "/version": probes.version,
            "/metrics": probes.metrics,
            "/": page,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await _say_no(scope, receive, send)
            return
        exchange = Exchange(scope, receive, send)
        try:
            self._origins.check(exchange)
            await self._endpoint(_path_in(scope), scope["method"])(exchange)
        except Exception as error:
            problem = problem_of(error, exchange.names.request)
            if not exchange.has_begun:
                await exchange.answer_problem(problem)

    def _endpoint(self, path: str, method: str) -> Endpoint:
        reads, posts = self._reads.get(path), self._posts.get(path)
        if reads is None and path.startswith(f"{_MODELS}/"):
            reads = partial(self._model, model=path.removeprefix(f"{_MODELS}/"))
        found = posts if method in _POSTS else reads if method in _READS else None
        if found is not None:
            return found
        if reads is None and posts is None:
            return _telling(_no_such_path(path, [*self._posts, _MODELS, f"{_MODELS}/{{model}}", *self._reads]))
        return _telling(_no_such_method(path, method, ", ".join(_POSTS if reads is None else _READS)))


def _path_in(scope: Scope) -> str:
    """Below the path at which a server has mounted the application."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    return path.removeprefix(root) if root and path.startswith(f"{root}/") else path


def _telling(problem: Problem) -> Endpoint:
    return lambda exchange: exchange.answer_problem(problem)


def _no_such_path(path: str, paths: Iterable[str]) -> Problem:
    known = list(dict.fromkeys(paths))
    hint = did_you_mean(path[:100], known) or f"; there are {', '.join(known)}"
    return Problem(404, f"There is no {named(path)} here{hint}", "not_found")


def _no_such_method(path: str, method: str, allowed: str) -> Problem:
    message = f"{named(path)} does not take {method}; it takes {allowed}."
    return Problem(405, message, "method_not_allowed", headers={"allow": allowed})


async def _say_no(scope: Scope, receive: Receive, send: Send) -> None:
    """To what is no HTTP. A server's own life is none of the application's business, and there are no WebSockets."""
    if scope["type"] == "lifespan":
        for stage in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{stage}.complete"})
    elif scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": 1000})
