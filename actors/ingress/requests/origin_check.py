"""Who is let in: requests to names of this server, and none that another site's page sends by its visitor's browser."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable
from functools import lru_cache

from .exchange import Exchange
from .parameters import named
from .refusals import CrossSite, Misdirected

# Fetch Metadata Request Headers, section 2.3: set by browsers, and by no page. "none": the visitor asked, not a page.
_OWN = ("same-origin", "none")
# Most clients of a server use one or two names for it. A name has as many bytes as a head at most (32 KiB).
_REMEMBERED = 32


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
        known = None if names is None else frozenset(name.lower() for name in names)

        @lru_cache(_REMEMBERED)
        def has(authority: str) -> bool:
            return _is_known(_name_in(authority), known)

        self._has: Callable[[str], bool] = has

    def __contains__(self, authority: str) -> bool:
        return self._has(authority)


class OriginCheck:
    """Turns away requests to names that are not this server's, and POSTs by pages of other sites. Browsers send both
    without asking; clients that are no browsers notice nothing.
    """

    def __init__(self, hosts: Hosts) -> None:
        self._hosts = hosts

    def check(self, exchange: Exchange) -> None:
        """Raises Misdirected and CrossSite."""
        host = exchange.header(b"host")
        if host is not None and host not in self._hosts:
            raise Misdirected(
                f"{named(host)} is no name of this server; ask for it by one that its certificate bears, "
                "or by its address."
            )
        if exchange.scope["method"] == "POST" and not _is_own(exchange, host):
            raise CrossSite("Pages of other sites may not ask this server; ask from its own page, or by a program.")


def _is_own(exchange: Exchange, host: str | None) -> bool:
    """Whether no page of another origin sends this. Browsers that do not tell the site tell the origin."""
    site = exchange.header(b"sec-fetch-site")
    if site is not None:
        return site in _OWN
    origin = exchange.header(b"origin")
    return origin is None or origin.partition("://")[2].lower() == (host or "").lower()


def _is_known(name: str, known: frozenset[str] | None) -> bool:
    if known is None or name == "localhost" or name.endswith(".localhost"):
        return True
    return name in known or f"*.{name.partition('.')[2]}" in known or _is_address(name)


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
