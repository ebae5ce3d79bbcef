"""Memory of a chat model: whole answers for repeated requests, pages of keys and values for shared beginnings."""

from .prefix_cache import PrefixCache
from .response_cache import ResponseCache

__all__ = ["PrefixCache", "ResponseCache"]
