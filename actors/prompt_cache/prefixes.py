"""Pages of keys and values by the tokens that they come from: a tree for each model. No I/O."""

from __future__ import annotations

import hashlib
import struct
from bisect import bisect_left, insort
from collections import OrderedDict
from collections.abc import Sequence
from typing import Generic, Protocol, TypeVar

from ...runtime.errors import MessageError
from ..completion import PAGE_TOKENS

ROOT_KEY = b""
KEY_NBYTES = 16
# A kept page holds one of the 512 rows for leases of the lane by which it came, until it is dropped. The rest is left
# to the 128 calls that a process may have in flight, each of which may bring an array too.
MOST_PAGES = 384

Tokens = tuple[int, ...]


class Sized(Protocol):
    """What is kept for a page: anything that says how many bytes it takes, as an ndarray does."""

    @property
    def nbytes(self) -> int: ...


Payload = TypeVar("Payload", bound=Sized)


def page_key(parent: bytes, tokens: Sequence[int]) -> bytes:
    """The name of a page: BLAKE2b, 16 bytes, of its parent's name and its tokens as little-endian int32.

    So it names the model, by the root's key, and all tokens from the beginning of the prompt.
    Raises MessageError for a token that is no int32.
    """
    try:
        packed = struct.pack(f"<{len(tokens)}i", *tokens)
    except struct.error as error:
        raise MessageError(f"tokens of a page must be whole numbers of 32 bits: {error}") from None
    return hashlib.blake2b(parent + packed, digest_size=KEY_NBYTES).digest()


class _Node(Generic[Payload]):
    """A place in the tree where pages follow: a page, or the root, where the prompts of one model begin.

    No child is the beginning of another: a fuller page takes its place.
    """

    __slots__ = ("_order", "children", "key")

    def __init__(self, key: bytes) -> None:
        self.key = key
        self.children: dict[Tokens, _Page[Payload]] = {}
        self._order: list[Tokens] = []  # sorted, so what begins alike stands together

    def nearest(self, run: Tokens) -> tuple[int, _Page[Payload] | None]:
        """The child that begins most like `run`, and for how many tokens."""
        at = bisect_left(self._order, run)
        beside = self._order[max(0, at - 1) : at + 1]
        common, tokens = max(((_common(run, each), each) for each in beside), default=(0, ()))
        return common, self.children[tokens] if common else None

    def add(self, page: _Page[Payload]) -> None:
        self.children[page.tokens] = page
        insort(self._order, page.tokens)

    def remove(self, page: _Page[Payload]) -> None:
        del self.children[page.tokens]
        del self._order[bisect_left(self._order, page.tokens)]


class _Page(_Node[Payload]):
    __slots__ = ("parent", "payload", "tokens")

    def __init__(self, key: bytes, tokens: Tokens, parent: _Node[Payload], payload: Payload) -> None:
        super().__init__(key)
        self.tokens = tokens
        self.parent = parent
        self.payload = payload


def _common(left: Tokens, right: Tokens) -> int:
    """How many tokens two runs have in common at their beginnings."""
    for index, (one, other) in enumerate(zip(left, right, strict=False)):
        if one != other:
            return index
    return min(len(left), len(right))


class Prefixes(Generic[Payload]):
    """Finds the longest beginning of a prompt for which pages are held.

    At most `most_pages` pages and `capacity_bytes` bytes are kept. What was used longest ago makes room; to use a page
    is to use those before it, so a page goes before its parent. Payloads are never looked into or copied. One thread.
    """

    def __init__(self, capacity_bytes: int, most_pages: int = MOST_PAGES) -> None:
        self.capacity_bytes = capacity_bytes
        self.most_pages = most_pages
        self.nbytes = 0
        self._roots: dict[bytes, _Node[Payload]] = {}
        # By when they were used, the oldest first; of one use the last page of the chain stands first.
        self._pages: OrderedDict[bytes, _Page[Payload]] = OrderedDict()
        self._counts = dict.fromkeys(("hits", "misses", "tokens_served", "evictions"), 0)

    def longest(self, tokens: Sequence[int], root: bytes = ROOT_KEY) -> list[tuple[int, Payload]]:
        """The pages of the longest known beginning of `tokens`, in order, each with how many of its rows are valid.

        All but the last are valid throughout. The last may be the beginning of a page that goes on otherwise: keys and
        values of a position depend on the tokens up to it alone.
        """
        wanted, found = tuple(tokens), []
        node = self._root(root)
        for at in range(0, len(wanted), PAGE_TOKENS):
            common, page = node.nearest(wanted[at : at + PAGE_TOKENS])
            if page is None:
                break
            found.append((common, page.payload))
            node = page
            if common < PAGE_TOKENS:
                break
        self._use(node)
        self._counts["hits" if found else "misses"] += 1
        self._counts["tokens_served"] += sum(valid for valid, _ in found)
        return found

    def keep(self, parent: bytes, tokens: Sequence[int], payload: Payload, root: bytes = ROOT_KEY) -> bytes | None:
        """Keeps the page that follows the page named `parent` (`root`: begins the prompt); returns its key.

        A page with fewer than 32 tokens is the last of its prompt: none follows it, and a fuller one takes its place.
        What is held already, also as the beginning of a fuller page, is not stored twice, but counts as used. None: it
        is not kept, since its parent is not held, or the limits leave no room beside the pages before it.
        Raises MessageError for no tokens, more than a page holds, or tokens that are no int32.
        """
        run = tuple(tokens)
        if not 1 <= len(run) <= PAGE_TOKENS:
            raise MessageError(f"a page has 1 to {PAGE_TOKENS} tokens, not {len(run)}")
        key = page_key(parent, run)
        node = self._parent(parent, root)
        if node is None or payload.nbytes > self.capacity_bytes:
            return None
        common, near = node.nearest(run)
        if near is not None and common == len(run):
            self._use(near)
            return key
        if near is not None and common == len(near.tokens):
            self._drop(near)
        self._add(_Page(key, run, node, payload))
        return key if key in self._pages else None

    def shed(self, pages: int) -> int:
        """Forgets that many pages, those first that were used longest ago; returns how many there were."""
        shed = min(pages, len(self._pages))
        for _ in range(shed):
            self._evict()
        return shed

    def _parent(self, key: bytes, root: bytes) -> _Node[Payload] | None:
        if key == root:
            return self._root(root)
        page = self._pages.get(key)
        return page if page is not None and len(page.tokens) == PAGE_TOKENS else None

    def _root(self, key: bytes) -> _Node[Payload]:
        """Where a model's prompts begin; one that no page follows is not held."""
        return self._roots.get(key) or _Node(key)

    def _add(self, page: _Page[Payload]) -> None:
        page.parent.add(page)
        if not isinstance(page.parent, _Page):
            self._roots[page.parent.key] = page.parent
        self._pages[page.key] = page
        self.nbytes += page.payload.nbytes
        self._use(page)
        while len(self._pages) > self.most_pages or self.nbytes > self.capacity_bytes:
            self._evict()

    def _evict(self) -> None:
        self._drop(next(iter(self._pages.values())))
        self._counts["evictions"] += 1

    def _use(self, node: _Node[Payload]) -> None:
        """Notes that a page and all before it were used. Parents come to stand after their children."""
        while isinstance(node, _Page):
            self._pages.move_to_end(node.key)
            node = node.parent

    def _drop(self, page: _Page[Payload]) -> None:
        """Forgets a page that has no children, and its model's root if that was its last."""
        parent = page.parent
        parent.remove(page)
        if not isinstance(parent, _Page) and not parent.children:
            del self._roots[parent.key]
        del self._pages[page.key]
        self.nbytes -= page.payload.nbytes

    def stats(self) -> dict[str, int]:
        return {"pages": len(self._pages), "bytes": self.nbytes, **self._counts}
