"""nginx, of Debian or whoever has installed it."""

from __future__ import annotations

import os
from pathlib import Path

from ..served_streams.asgi_server import Served
from .answer import LARGE_NBYTES, LARGE_PATH, SMALL, SMALL_PATH, SMALL_TYPE
from .command_server import CommandServer, require_program, run_program

_PROGRAM = require_program("nginx", "nginx-light")
# One process needs no master; where there is one, it makes the tickets' keys for all.
_CONFIGURATION = """
daemon off;
master_process {master};
worker_processes {processes};
pid {folder}/nginx.pid;
error_log stderr error;
events {{ worker_connections 16384; }}
http {{
    access_log off;
    keepalive_requests 1000000000;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen {host}:{port} ssl reuseport backlog={backlog};
        ssl_certificate {chain};
        ssl_certificate_key {key};
        ssl_protocols TLSv1.3;
        ssl_session_tickets on;
        root {folder}/files;
        location = {path} {{ default_type {type}; return 200 '{small}'; }}
    }}
}}
"""


class Nginx(CommandServer):
    name = "nginx"
    title = "nginx"
    module = "..tls_servers.nginx_server"


def serve(served: Served) -> None:
    folder = os.getcwd()
    files = Path(folder, "files")
    files.mkdir()
    with (files / LARGE_PATH.strip("/")).open("wb") as large:
        large.truncate(LARGE_NBYTES)
    text = _CONFIGURATION.format(
        folder=folder,
        master="off" if served.processes == 1 else "on",
        processes=served.processes,
        host=served.host,
        port=served.port,
        backlog=served.backlog,
        chain=served.chain,
        key=served.key,
        path=SMALL_PATH,
        type=SMALL_TYPE,
        small=SMALL.decode(),
    )
    os.chmod(folder, 0o755)  # its workers may be another user's
    run_program(_PROGRAM, ["-p", folder, "-c", f"{folder}/nginx.conf"], "nginx.conf", text)
