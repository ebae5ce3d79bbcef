"""Who is let in: requests to names of this server, and none that another site's page sends by its visitor's browser."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from .parameters import named
from .problems import problem_of, response_to
from .refusals import CrossSite, Misdirected, Refusal
from .request_id import request_id

# Fetch Metadata Request Headers, section 2.3: set by browsers, and by no page. "none": the visitor asked, not a page.
_OWN = ("same-origin", "none")


class Hosts:
    """Tells whether a Host header names this server: `"localhost:8443" in hosts`. Ports do not matter.

    A web page whose author lets its own name stand for this machine's address (DNS rebinding) is asked for by that
    name: so names must be known, and addresses, which no page can choose, need not. `names` may begin with "*.".
    With None any name is taken.
    """

    def __init__(self, names: Iterable[str] | None) -> None:
        self.know(names)

    def know(self, names: Iterable[str] | None) -> None:
        """Takes these in the place of those that were known."""
        self._names = None if names is None else frozenset(name.lower() for name in names)

    def __contains__(self, authority: str) -> bool:
        name = _name_in(authority)
        if self._names is None or _is_address(name) or name == "localhost" or name.endswith(".localhost"):
            return True
        return name in self._names or f"*.{name.partition('.')[2]}" in self._names


class OriginCheck:
    """Turns away, before the application inside hears of them, requests to names that are not this server's, and
    POSTs by pages of other sites. Browsers send both without asking; clients that are no browsers notice nothing.
    """

    def __init__(self, app: ASGIApp, hosts: Hosts) -> None:
        self._app = app
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = self._refusal(scope) if scope["type"] == "http" else None
        if refusal is None:
            await self._app(scope, receive, send)
        else:
            await response_to(problem_of(refusal, request_id(scope)))(scope, receive, send)

    def _refusal(self, scope: Scope) -> Refusal | None:
        headers = Headers(scope=scope)
        host = headers.get("host")
        if host is not None and host not in self._hosts:
            return Misdirected(
                f"{named(host)} is no name of this server; ask for it by one that its certificate bears, "
                "or by its address."
            )
        if scope["method"] == "POST" and not _is_own(headers):
            return CrossSite("Pages of other sites may not ask this server; ask from its own page, or by a program.")
        return None


def _is_own(headers: Headers) -> bool:
    """Whether no page of another origin sends this. Browsers that do not tell the site tell the origin."""
    site = headers.get("sec-fetch-site")
    if site is not None:
        return site in _OWN
    origin = headers.get("origin")
    return origin is None or origin.partition("://")[2].lower() == headers.get("host", "").lower()


def _name_in(authority: str) -> str:
    """Without port, brackets, and the dot of a full name; "" where there is none."""
    host = authority.strip().lower()
    bracketed, _, _ = host.removeprefix("[").partition("]")
    return bracketed if host.startswith("[") else host.partition(":")[0].removesuffix(".")


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
