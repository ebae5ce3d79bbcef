"""Whether the kernel encrypts TLS records by itself (kTLS), found out by trying: modules are loaded when one asks."""

from __future__ import annotations

import os
import socket

# Of <linux/tcp.h>; Python's module does not name it.
_TCP_ULP = 31


def why_not() -> str:
    """Why this kernel offers no TLS; "" where it does. Connects two sockets of the loopback address for it."""
    try:
        with (
            socket.create_server(("127.0.0.1", 0), backlog=1) as listener,
            socket.create_connection(listener.getsockname()) as connection,
        ):
            connection.setsockopt(socket.IPPROTO_TCP, _TCP_ULP, b"tls")
    except FileNotFoundError:
        return "this kernel has no module tls"
    except OSError as error:
        return f"this kernel refuses it: {os.strerror(error.errno or 0)}"
    return ""
