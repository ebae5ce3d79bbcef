"""The page that a browser sees: what runs here, and a box to try it."""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from importlib.resources import files

from ..requests.exchange import Exchange


async def page(exchange: Exchange) -> None:
    """`GET /`."""
    text, policy = _page_and_policy()
    headers = [("content-security-policy", policy), ("x-content-type-options", "nosniff")]
    await exchange.answer(text, kind="text/html; charset=utf-8", headers=headers)


@cache
def _page_and_policy() -> tuple[bytes, str]:
    """The page, and a Content-Security-Policy (level 3) under which nothing but its own text runs."""
    text = files(__package__).joinpath("page.html").read_text("utf-8")
    policy = (
        f"default-src 'none'; script-src {_hash_of('script', text)}; style-src {_hash_of('style', text)}; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return text.encode(), policy


def _hash_of(element: str, text: str) -> str:
    inside = re.search(f"<{element}>(.*?)</{element}>", text, re.DOTALL)
    digest = hashlib.sha256(inside[1].encode() if inside else b"").digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
