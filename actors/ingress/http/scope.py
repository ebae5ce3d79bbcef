"""What an application is told of a request, as ASGI has it."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote

from httptools import parse_url

from ..requests.streamed_body import EXTENSION
from .request_head import Headers, with_its_authority

_ASGI = {"version": "3.0", "spec_version": "2.3"}


def scope_of(method: bytes, url: bytes, version: str, headers: Headers) -> dict[str, Any]:
    """Of a request whose head has no fault; all but what it comes by. Raises HttpParserError for a URL that is none."""
    if not url.startswith(b"/"):
        headers = with_its_authority(url, headers)
    parsed = parse_url(url)
    path = parsed.path.decode("ascii")
    return {
        "type": "http",
        "asgi": _ASGI,
        "http_version": version,
        "method": method.decode("ascii"),
        "root_path": "",
        "path": unquote(path) if "%" in path else path,
        "raw_path": parsed.path,
        "query_string": parsed.query or b"",
        "headers": headers,
        "state": {},
        "extensions": {} if method == b"HEAD" else {EXTENSION: {}},
    }
