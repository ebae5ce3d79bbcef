"""Documents of the control plane, and the graph as a worker gets it: in anonymous memory, sealed."""

from __future__ import annotations

import fcntl
import os
from typing import Any

import msgpack

_WRITE_SEALS = 0x0001 | 0x0002 | 0x0004 | 0x0008  # F_SEAL_SEAL, SHRINK, GROW, WRITE of linux/fcntl.h


def sealed_document(packed: bytes) -> int:
    """The graph's spec in anonymous memory: user code that was pickled travels by no socket."""
    descriptor = os.memfd_create("slabwire:spec", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    with open(descriptor, "wb", closefd=False) as file:
        file.write(packed)
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _WRITE_SEALS)
    return descriptor


def pack_document(value: Any) -> bytes:
    """As msgpack. What is in it need not be UTF-8: names of files and what the environment holds are not, always."""
    packed: bytes = msgpack.packb(value, unicode_errors="surrogatepass")
    return packed


def unpack_document(packed: bytes, **options: Any) -> Any:
    """The inverse. Raises ValueError for bytes that are none."""
    return msgpack.unpackb(packed, unicode_errors="surrogatepass", **options)
