"""The actor that lets the network in."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from ...runtime.actor.actor import Actor
from ...runtime.cell.binding import CellBinding, binding_of
from ...runtime.errors import GraphError
from .certificates.paths import problems_of
from .requests.serving import ServingState

if TYPE_CHECKING:
    from .certificates.certificate import Certificate
    from .certificates.watch import CertificateWatch
    from .http.server import HttpServer
    from .requests.metrics import Metrics
    from .tls.terminator import Terminator

logger = logging.getLogger("slabwire")

# Of the 5 s that a worker gets to leave: requests in flight have had the graph's draining before, and what is cut off
# takes two seconds more at most.
STOP_WITHIN_S = 2.0
# Thousands of streams, each on a connection of its own: 84 MiB, if all of them are idle (21 KiB each). Fewer are kept
# where the limit of open files is lower (`ulimit -Hn`, mostly 4096 to 1048576).
CONNECTIONS = 4096


class Ingress(Actor):
    """OpenAI's interface over TLS: `graph.add(Ingress, models={"smollm2": "llm"})`.

    `models`: the names that clients use, and the actors that answer for them, which have the ports `chat` and
    `describe`. `host`, `port`: where it listens, by default for this machine alone; a port of 0 takes a free one.
    `requests` are the answers in flight at most, no more than its `calls` (128), `body_bytes` the largest body,
    `connections` those that are open at most. `minimum_tls="1.2"` also lets clients in that do not speak TLS 1.3.
    `tickets` names an actor `TicketKeys`, so that a session that began at one process is resumed at each; without it
    each has keys of its own.

    `certificate`, `key`: PEM files, the chain and its private key, which may lie in one file; or a directory in which
    both lie; or lists of these, for a certificate of each kind of key (ECDSA, Ed25519, RSA). Where they change, new
    connections get the new ones, unless these cannot be used. Without them a certificate for development is made, and
    kept.

    Replicas share the port, and each takes `requests` and `connections` of its own, as it has `calls` of its own: two
    take twice as many. Whichever is asked answers for all: `/readyz` says that requests are served as long as one of
    them serves, `/metrics` has the sums. The supervisor holds the sockets, so connections that wait for one that has
    died are answered by its successor; counters go on where it had come to.

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
        connections: int = CONNECTIONS,
        minimum_tls: Literal["1.3", "1.2"] = "1.3",
        tickets: str | None = None,
    ) -> None:
        self.__check__(
            models,
            certificate=certificate,
            key=key,
            requests=requests,
            body_bytes=body_bytes,
            connections=connections,
            minimum_tls=minimum_tls,
            tickets=tickets,
        )
        self.models = models
        self.host, self.port = host, port
        self.certificate, self.key = certificate, key
        self.requests, self.body_bytes, self.connections = requests, body_bytes, connections
        self.minimum_tls = minimum_tls
        self.tickets = tickets
        self.server: HttpServer | None = None
        self.metrics: Metrics | None = None
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
        tickets: str | None = None,
        settings: Mapping[str, Any] | None = None,
        **_: Any,
    ) -> None:
        problems = problems_of(certificate, key)
        if not models:
            problems.append("an Ingress needs models={public name: actor's name} with one model at least")
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
        if tickets is not None and not isinstance(tickets, str):
            problems.append(f"an Ingress was given tickets={tickets!r}; it must be the name of an actor TicketKeys")
        if problems:
            raise GraphError(*problems)

    async def on_start(self) -> None:
        # Imported here, so that only the process that serves needs (and holds) what HTTP and TLS need.
        from .application import build_application
        from .certificates.certificate import names_of
        from .certificates.kept_certificates import CERTIFICATES, KeptCertificates
        from .certificates.paths import source_for
        from .certificates.watch import CertificateWatch
        from .counts.roster import Stage
        from .http.connection_limit import affordable
        from .http.listening import open_listeners
        from .http.server import HttpServer
        from .openai.seats import Seats
        from .probes.supervisor import GraphMetrics, Supervisor, ask_supervisor
        from .requests.limits import Limits
        from .requests.metrics import Metrics
        from .requests.origin_check import Hosts

        limits = Limits(requests=self.requests, body_bytes=self.body_bytes)
        binding = binding_of(self)
        if binding is None:
            raise RuntimeError("an Ingress starts in a worker alone: run the graph that it belongs to")
        name = binding.graph
        self.metrics = metrics = Metrics(self.models, keep=self.keep, replicas=binding.replicas)
        source = source_for(self.certificate, self.key, self.host)
        kept = KeptCertificates(self.keep("certificates", CERTIFICATES))
        self._watch = watch = CertificateWatch(source, kept, metrics.connections.certificates_came, metrics.look_at_tls)
        terminator = self._terminator(watch, metrics)
        metrics.show_tls(terminator.describe)
        hosts = Hosts(names_of(watch.certificates, self.host))
        connections = affordable(self.connections)
        metrics.allow(requests=self.requests, connections=connections)
        application = build_application(
            _Asks(self, binding),
            self.models,
            hosts=hosts,
            limits=limits,
            state=self.state,
            metrics=metrics,
            graph=GraphMetrics(lambda: ask_supervisor(name)) if name else None,
            seats=Seats({actor: binding.places_at(actor) for actor in self.models.values()}, binding.replicas),
            supervisor=Supervisor(name) if name else None,
        )
        self.server = HttpServer(application, terminator, connections=connections, counts=metrics.connections)
        roster = metrics.roster
        own, *others = [
            open_listeners(self.host, self.port, partial(self.listen, replica=each)) for each in roster.own_first()
        ]
        self.server.start(own, dict(zip(roster.own_first()[1:], others, strict=True)), roster.absent)

        def take(certificates: Sequence[Certificate]) -> None:
            terminator.swap(certificates)
            hosts.know(names_of(certificates, self.host))

        watch.start(take)
        roster.enter(Stage.SERVING)
        url = self._url(self.server)
        logger.info("page: %s/", url)
        logger.info("API: %s/v1", url)
        logger.info("certificate: %s", watch.certificates[0].public)

    def _terminator(self, watch: CertificateWatch, metrics: Metrics) -> Terminator:
        """With the certificates that were read, or those that are kept where the engine does not take these."""
        from .certificates.certificate import CertificateError
        from .tickets.memory import RING, RING_NAME, RingReader
        from .tls.engine import terminator_for

        keys = None if self.tickets is None else RingReader(self.keep(f"{self.tickets}.{RING_NAME}", RING))
        options = self.minimum_tls, keys, metrics.connections.resumption_refused
        try:
            return terminator_for(watch.certificates, *options)
        except CertificateError as error:
            watch.fall_back(error)
            return terminator_for(watch.certificates, *options)

    def on_drain(self) -> None:
        from .counts.roster import Stage

        binding = binding_of(self)
        if self.server is None or self.metrics is None or binding is None:
            self.state.draining = True
        elif binding.retires and self.metrics.roster.others_serve():
            self.metrics.roster.enter(Stage.LEAVING)
            self.server.leave()
        else:
            self.metrics.roster.enter(Stage.DRAINING)
            self.state.draining = True

    async def on_stop(self) -> None:
        from .counts.roster import Stage
        from .http.connection import FRESH_WITHIN_S

        if self._watch is not None:
            await self._watch.stop()
        if self.server is not None:
            # A graph that ends has told its clients; they do not know that this process does.
            binding = binding_of(self)
            goes_on = not self.state.draining or (binding is not None and binding.retires)
            hear_s = FRESH_WITHIN_S if goes_on else 0.0
            await self.server.stop(STOP_WITHIN_S, tell=self.state.end, hear_s=hear_s)
        if self.metrics is not None:
            self.metrics.roster.enter(Stage.AWAY)

    def describe(self) -> dict[str, Any]:
        """Where it listens, and how it fares.

        {"url", "certificate", "models", "tls", "connections", "handshakes", "running", "requests", "refused",
        "failed_handshakes", "replica", "replicas", "ways", "handshaken"}. "requests", "refused" and "failed_handshakes"
        count since the start of this process; of all replicas "ways" counts the streamed answers by the way of their
        body, and "handshaken" the handshakes by kind. "replicas" has of each
        {"replica", "stage", "pid", "connections", "accepted", "share", "requests", "streams", "ways", "handshaken",
        "certificate_ends", "key_since"}; "share" is that of all connections accepted, "requests" those in flight;
        the last two are seconds since 1970.
        """
        if self.server is None or self.metrics is None or self._watch is None:
            raise RuntimeError("the ingress does not listen: a worker calls on_start() before any handler")
        tls = self.server.terminator.describe() | self._watch.describe()
        return {
            "url": self._url(self.server),
            "certificate": tls["certificate"],
            "models": dict(self.models),
            "tls": tls,
            **self.server.stats(),
            "replica": self.metrics.roster.replica,
            **self.metrics.describe_replicas(),
        }

    def _url(self, server: HttpServer) -> str:
        from .http.listening import authority

        host = "localhost" if self.host in ("0.0.0.0", "::") else self.host
        return f"https://{authority(host, server.port)}"


class _Asks:
    """The actor's verbs for the application: its calls, which are those of probes, have places of their own."""

    def __init__(self, actor: Ingress, binding: CellBinding) -> None:
        self.streams = actor.streams
        self._binding = binding

    async def call(self, target: str, /, *_: Any, timeout_s: float | None = None, **__: Any) -> Any:
        return await self._binding.ask_aside(target, timeout_s)
