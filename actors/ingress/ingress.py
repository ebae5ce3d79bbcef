"""The actor that lets the network in."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ...runtime.actor.actor import Actor
from ...runtime.cell.binding import CellBinding, binding_of
from ...runtime.errors import GraphError
from .requests.serving import ServingState

if TYPE_CHECKING:
    from .certificates.certificate import Certificate
    from .certificates.source import CertificateSource
    from .certificates.watch import CertificateWatch
    from .http.server import HttpServer

logger = logging.getLogger("slabwire")

# Of the 5 s that a worker gets to leave: requests in flight have had the graph's draining before, and what is cut off
# takes two seconds more at most.
STOP_WITHIN_S = 2.0


class Ingress(Actor):
    """OpenAI's interface over TLS: `graph.add(Ingress, models={"smollm2": "llm"})`.

    `models`: the names that clients use, and the actors that answer for them, which have the ports `chat` and
    `describe`. `host`, `port`: where it listens, by default for this machine alone; a port of 0 takes a free one.
    `requests` are the answers in flight at most, 128 or fewer, `body_bytes` the largest body, `connections` those that
    are open at most. `minimum_tls="1.2"` also lets clients in that do not speak TLS 1.3.

    `certificate`, `key`: PEM files, the chain and its private key, which may lie in one file; or a directory in which
    both lie; or lists of these, for a certificate of each kind of key (ECDSA, Ed25519, RSA). Where they change, new
    connections get the new ones, unless these cannot be used. Without them a certificate for development is made, and
    kept.

    Replicas share the port. Its supervisor holds the sockets, so connections that wait for one that has died are
    answered by its successor.

    It answers to the names on its certificate, to `host`, to localhost and to any address, and to no other name, so
    that no web page can reach it by one of its own; the Host that a proxy sends must be one of these. A certificate
    that bears no names (SAN) lets it answer to any. Pages of other sites may not POST.

    A certificate or an address that cannot be used ends the start with an error that names it and the remedy.
    """

    def __init__(
        self,
        models: dict[str, str],
        host: str = "127.0.0.1",
        port: int = 8443,
        certificate: str | list[str] | None = None,
        key: str | list[str] | None = None,
        requests: int = 48,
        body_bytes: int = 4 << 20,
        connections: int = 256,
        minimum_tls: Literal["1.3", "1.2"] = "1.3",
    ) -> None:
        self.__check__(
            models,
            certificate=certificate,
            key=key,
            requests=requests,
            body_bytes=body_bytes,
            connections=connections,
            minimum_tls=minimum_tls,
        )
        self.models = models
        self.host, self.port = host, port
        self.certificate, self.key = certificate, key
        self.requests, self.body_bytes, self.connections = requests, body_bytes, connections
        self.minimum_tls = minimum_tls
        self.server: HttpServer | None = None
        self._watch: CertificateWatch | None = None
        self.state = ServingState()

    @classmethod
    def __check__(
        cls,
        models: dict[str, str],
        *,
        certificate: str | list[str] | None = None,
        key: str | list[str] | None = None,
        requests: int = 1,
        body_bytes: int = 1,
        connections: int = 1,
        minimum_tls: str = "1.3",
        settings: Mapping[str, Any] | None = None,
        **_: Any,
    ) -> None:
        problems = []
        if not models:
            problems.append("an Ingress needs models={public name: actor's name} with one model at least")
        if key is not None and certificate is None:
            problems.append("an Ingress was given key= without the certificate= that it fits")
        elif not _are_paths(certificate) or not _are_paths(key):
            problems.append(f"an Ingress was given {certificate=} and {key=}; each is the path of a file, or a list")
        elif key is not None and len(_listed(certificate)) != len(_listed(key)):
            problems.append("an Ingress was given lists of certificate= and key= that are not equally long")
        for name, value in (("requests", requests), ("body_bytes", body_bytes), ("connections", connections)):
            if type(value) is not int or value < 1:
                problems.append(f"an Ingress was given {name}={value!r}; it must be a whole number above 0")
            elif name == "requests" and settings is not None and value > settings["calls"]:
                problems.append(
                    f"an Ingress was given requests={value}, and has {settings['calls']} answers in flight at most; "
                    f"give it calls={value} as well, or fewer requests"
                )
        if minimum_tls not in ("1.3", "1.2"):
            problems.append(f'an Ingress was given minimum_tls={minimum_tls!r}; it must be "1.3" or "1.2"')
        if problems:
            raise GraphError(*problems)

    async def on_start(self) -> None:
        # Imported here, so that only the process that serves needs (and holds) what HTTP and TLS need.
        from .application import build_application
        from .certificates.certificate import CertificateError
        from .certificates.kept_certificates import CERTIFICATES, KeptCertificates
        from .certificates.watch import CertificateWatch
        from .http.listening import open_listeners
        from .http.server import HttpServer
        from .openai.seats import Seats
        from .probes.supervisor import GraphMetrics, Supervisor, ask_supervisor
        from .requests.limits import Limits
        from .requests.metrics import Metrics
        from .requests.origin_check import Hosts
        from .tls.engine import terminator_for

        kept = KeptCertificates(self.keep("certificates", CERTIFICATES))
        watch = CertificateWatch(self._certificate_source(), kept)
        limits = Limits(requests=self.requests, body_bytes=self.body_bytes)
        binding = binding_of(self)
        if binding is None:
            raise RuntimeError("an Ingress starts in a worker alone: run the graph that it belongs to")
        name = binding.graph
        try:
            terminator = terminator_for(watch.certificates, self.minimum_tls)
        except CertificateError as error:
            watch.fall_back(error)
            terminator = terminator_for(watch.certificates, self.minimum_tls)
        hosts = Hosts(self._names(watch.certificates))
        metrics = Metrics()
        metrics.show_tls(terminator.describe)
        application = build_application(
            _Asks(self, binding),
            self.models,
            hosts=hosts,
            limits=limits,
            state=self.state,
            metrics=metrics,
            graph=GraphMetrics(lambda: ask_supervisor(name)) if name else None,
            seats=Seats({actor: binding.places_at(actor) for actor in self.models.values()}),
            supervisor=Supervisor(name) if name else None,
        )
        self.server = HttpServer(application, terminator, connections=self.connections)
        self.server.start(open_listeners(self.host, self.port, self.listen))

        def take(certificates: Sequence[Certificate]) -> None:
            terminator.swap(certificates)
            hosts.know(self._names(certificates))

        self._watch = watch
        watch.start(take)
        url = self._url(self.server)
        logger.info("page: %s/", url)
        logger.info("API: %s/v1", url)
        logger.info("certificate: %s", watch.certificates[0].public)

    def on_drain(self) -> None:
        self.state.draining = True

    async def on_stop(self) -> None:
        if self._watch is not None:
            await self._watch.stop()
        if self.server is not None:
            await self.server.stop(STOP_WITHIN_S, tell=self.state.is_over.set)

    def describe(self) -> dict[str, Any]:
        """Where it listens, and how it fares.

        {"url", "certificate", "models", "tls", "connections", "handshakes", "running", "requests", "refused",
        "failed_handshakes"}; the last three count since the start of this process.
        """
        if self.server is None or self._watch is None:
            raise RuntimeError("the ingress does not listen: a worker calls on_start() before any handler")
        tls = self.server.terminator.describe() | self._watch.describe()
        return {
            "url": self._url(self.server),
            "certificate": tls["certificate"],
            "models": dict(self.models),
            "tls": tls,
            **self.server.stats(),
        }

    def _certificate_source(self) -> CertificateSource:
        from .certificates.development import DevelopmentFiles
        from .certificates.source import CertificateFiles

        if self.certificate is None:
            return DevelopmentFiles(self.host)
        chains = _listed(self.certificate)
        keys = [None] * len(chains) if self.key is None else [Path(each) for each in _listed(self.key)]
        return CertificateFiles([(Path(chain), key) for chain, key in zip(chains, keys, strict=True)])

    def _names(self, certificates: Sequence[Certificate]) -> list[str] | None:
        """The names that it answers to; None for any, where a certificate bears none."""
        names = [self.host]
        for each in certificates:
            if each.names is None:
                return None
            names += each.names
        return names

    def _url(self, server: HttpServer) -> str:
        from .http.listening import authority

        host = "localhost" if self.host in ("0.0.0.0", "::") else self.host
        return f"https://{authority(host, server.port)}"


def _listed(paths: str | list[str] | None) -> list[str]:
    return [paths] if isinstance(paths, str) else paths or []


def _are_paths(paths: object) -> bool:
    each = paths if isinstance(paths, list) else [paths]
    return paths is None or (bool(each) and all(isinstance(path, str) and path for path in each))


class _Asks:
    """The actor's verbs for the application: its calls, which are those of probes, have places of their own."""

    def __init__(self, actor: Ingress, binding: CellBinding) -> None:
        self.streams = actor.streams
        self._binding = binding

    async def call(self, target: str, /, *_: Any, timeout_s: float | None = None, **__: Any) -> Any:
        return await self._binding.ask_aside(target, timeout_s)
