"""Who is let in: no request that another site's page sends by its visitor's browser."""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from .hosts import Hosts
from .parameters import named
from .problems import problem_of, response_to
from .refusals import CrossSite, Misdirected, Refusal
from .request_id import request_id

# Fetch Metadata Request Headers, section 2.3: set by browsers, and by no page. "none": the visitor asked, not a page.
_OWN = ("same-origin", "none")


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
