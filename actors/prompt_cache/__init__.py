"""Memory of a chat model: whole answers for repeated requests, pages of keys and values for shared beginnings."""

from .cache import PromptCache

__all__ = ["PromptCache"]
