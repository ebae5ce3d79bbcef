"""The head of a request, where the parser is more lenient than RFC 9110 (HTTP) and RFC 9112 (HTTP/1.1) allow.

Also what a connection answers itself, in the application's place, before it closes.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from email.utils import formatdate
from enum import Enum, auto
from http import HTTPStatus

# Line and header fields. Ours are below 1 KiB; most servers allow 8 to 64.
LARGEST_HEAD_NBYTES = 32 * 1024
# Requests that wait for the answer before theirs. Clients that pipeline at all send a handful.
MOST_PIPELINED = 32
Headers = list[tuple[bytes, bytes]]


class Part(Enum):
    """What of a request has come in."""

    HEAD = auto()
    BODY = auto()
    WHOLE = auto()


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why a request is turned away before it has come to the application."""

    status: HTTPStatus
    text: str

    def encode(self) -> bytes:
        """A whole answer, with the body that OpenAI's clients expect of an error."""
        error = {"message": self.text, "type": "invalid_request_error", "param": None, "code": None}
        body = json.dumps({"error": error})
        head = [f"HTTP/1.1 {self.status.value} {self.status.phrase}", f"date: {formatdate(usegmt=True)}"]
        head += ["connection: close", "content-type: application/json", f"content-length: {len(body)}", "", ""]
        return ("\r\n".join(head) + body).encode()


NO_HTTP = Rejection(HTTPStatus.BAD_REQUEST, "This is no valid HTTP/1.1 request.")
OVERDUE = Rejection(
    HTTPStatus.REQUEST_TIMEOUT, "The request did not come in within its time; send the whole of it at once."
)
MAKES_ROOM = Rejection(
    HTTPStatus.REQUEST_TIMEOUT,
    "All connections are taken, and this request has been incomplete for the longest; send the whole of it at once.",
)

HEAD_TOO_LARGE = Rejection(
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
    f"The request's head is larger than {LARGEST_HEAD_NBYTES} bytes, the most that this server takes.",
)
TOO_FINE = Rejection(
    HTTPStatus.BAD_REQUEST,
    "The request's body comes in chunks of a few bytes, which cost more than they bring; send larger chunks, or the "
    "whole with its length.",
)
TOO_MANY_WAIT = Rejection(
    HTTPStatus.TOO_MANY_REQUESTS,
    f"Over {MOST_PIPELINED} requests wait on this connection; wait for answers, or open another one.",
)

# uri-host and port, RFC 3986, section 3.2.
_HOST = re.compile(rb"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~%!$&'()*+,;=-]*)(:[0-9]*)?")
_HOST_WANTED = Rejection(HTTPStatus.BAD_REQUEST, "A request of HTTP/1.1 needs one Host header, such as localhost:8443.")
_NO_CONNECT = Rejection(HTTPStatus.NOT_IMPLEMENTED, "This server is no proxy: it knows no CONNECT.")
_ONLY_CHUNKED = Rejection(
    HTTPStatus.NOT_IMPLEMENTED, "Of transfer codings this server knows 'chunked' alone; send the body with its length."
)
_NO_UPGRADE = Rejection(
    HTTPStatus.NOT_IMPLEMENTED, "This server changes to no other protocol; send a request with a body without Upgrade."
)


def fault_of(
    method: bytes, url: bytes, version: str, headers: Headers, *, upgrade: bool, waiting: int
) -> Rejection | None:
    """Why a request cannot be taken as its head stands, behind so many that wait. Header names are in lower case.

    `upgrade`: the parser takes what follows for another protocol and reads no body. What comes behind the head of such
    a request must never be parsed: a body would be taken for the next request (RFC 9110, section 7.8, lets a server
    ignore Upgrade; where there is no body that is what is done).
    """
    if waiting >= MOST_PIPELINED:
        return TOO_MANY_WAIT
    nbytes, hosts, has_body = len(url), 0, False
    codings: list[bytes] = []
    for name, value in headers:
        nbytes += len(name) + len(value)
        if name == b"host":
            hosts += 1 if _HOST.fullmatch(value.strip()) else 2
        elif name == b"transfer-encoding":
            codings.append(value.strip().lower())
        elif name == b"content-length":
            has_body = has_body or bool(value.strip().strip(b"0"))
    if nbytes > LARGEST_HEAD_NBYTES:
        return HEAD_TOO_LARGE
    if version not in ("1.0", "1.1"):
        return NO_HTTP
    if method == b"CONNECT":
        return _NO_CONNECT
    if hosts > 1 or (not hosts and version == "1.1"):
        return _HOST_WANTED
    if codings and version == "1.0":
        return NO_HTTP  # RFC 9112, section 6.1: its length cannot be trusted
    if codings not in ([], [b"chunked"]):
        return _ONLY_CHUNKED
    return _NO_UPGRADE if upgrade and (codings or has_body) else None


def with_its_authority(url: bytes, headers: Headers) -> Headers:
    """The headers, with the Host that an absolute URL names in place of theirs (RFC 9112, section 3.2.2)."""
    _, separator, rest = url.partition(b"://")
    if not separator or url.startswith(b"/"):
        return headers
    authority = re.split(rb"[/?#]", rest, maxsplit=1)[0]
    return [(b"host", authority), *(each for each in headers if each[0] != b"host")]
