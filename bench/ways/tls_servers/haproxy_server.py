"""HAProxy, of Debian or whoever has installed it: threads in place of processes, and no large answers of its own."""

from __future__ import annotations

from pathlib import Path

from ..served_streams.asgi_server import Served
from .answer import SMALL, SMALL_PATH, SMALL_TYPE
from .command_server import CommandServer, require_program, run_program

_PROGRAM = require_program("haproxy", "haproxy")
# It wants chain and key in one file.
_PAIR = "pair.pem"
_CONFIGURATION = """
global
    nbthread {processes}
    maxconn 2048
    ssl-default-bind-options ssl-min-ver TLSv1.3
defaults
    mode http
    timeout client 75s
    timeout connect 5s
    timeout server 75s
frontend front
    bind {host}:{port} ssl crt {pair} alpn http/1.1 backlog {backlog}
    http-request return status 200 content-type {type} string '{small}' if {{ path {path} }}
"""


class Haproxy(CommandServer):
    name = "haproxy"
    title = "HAProxy"
    module = "..tls_servers.haproxy_server"
    serves_large = False


def serve(served: Served) -> None:
    pair = Path(_PAIR)
    pair.touch(0o600)
    pair.write_text(Path(served.chain).read_text() + Path(served.key).read_text())
    text = _CONFIGURATION.format(
        processes=served.processes,
        host=served.host,
        port=served.port,
        backlog=served.backlog,
        pair=_PAIR,
        path=SMALL_PATH,
        type=SMALL_TYPE,
        small=SMALL.decode(),
    )
    run_program(_PROGRAM, ["-q", "-db", "-f", "haproxy.cfg"], "haproxy.cfg", text)
