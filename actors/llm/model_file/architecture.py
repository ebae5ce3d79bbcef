"""The size and shape of a language model, as the metadata of its file says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .gguf import Gguf, ModelFileError

# The family whose metadata and tensors are understood.
FAMILY = "llama"
# A longer one is a damaged file's: tables of angles are made for all of it.
LONGEST_CONTEXT = 1 << 20


@dataclass(frozen=True)
class Architecture:
    """A decoder of the Llama family.

    `layers` blocks over vectors of `width` numbers; `heads` query heads and `kv_heads` heads of keys and values, each
    of `head_dim` numbers, turned by rotary embeddings of base `rope_theta`; `hidden` is the width inside the
    feed-forward part, `epsilon` that of the RMS norms. It reads up to `context` tokens of a vocabulary of `vocabulary`.
    """

    layers: int
    width: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    rope_theta: float
    epsilon: float
    context: int
    vocabulary: int

    @classmethod
    def of(cls, gguf: Gguf) -> Architecture:
        """Raises `ModelFileError` for another family, a variant that would be computed wrongly, or missing values."""
        family = gguf.metadata.get("general.architecture")
        if family != FAMILY:
            raise _refused(gguf, f"its architecture is {family!r}; only {FAMILY!r} is known here")
        metadata = _Metadata(gguf)
        heads, width = metadata.count("attention.head_count"), metadata.count("embedding_length")
        head_dim = metadata.count("attention.key_length", width // heads)
        metadata.must_be("attention.value_length", head_dim)
        metadata.must_be("rope.dimension_count", head_dim)
        metadata.must_be("rope.scaling.type", "none")
        metadata.must_be("expert_count", 0)
        kv_heads = metadata.count("attention.head_count_kv", heads)
        if heads % kv_heads or head_dim % 2:
            raise _refused(gguf, f"{heads} heads of {head_dim} numbers cannot share {kv_heads} heads of keys")
        return cls(
            layers=metadata.count("block_count"),
            width=width,
            hidden=metadata.count("feed_forward_length"),
            heads=heads,
            kv_heads=kv_heads,
            head_dim=head_dim,
            rope_theta=metadata.number("rope.freq_base", 10000.0, least=1.0),
            epsilon=metadata.number("attention.layer_norm_rms_epsilon", None, least=0.0),
            context=metadata.count("context_length", most=LONGEST_CONTEXT),
            vocabulary=_vocabulary(gguf),
        )


class _Metadata:
    """The values of one family, each checked as it is read."""

    def __init__(self, gguf: Gguf) -> None:
        self._gguf = gguf

    def _value(self, name: str, default: Any) -> Any:
        value = self._gguf.metadata.get(f"{FAMILY}.{name}", default)
        if value is None:
            raise _refused(self._gguf, f"metadata '{FAMILY}.{name}' is missing")
        return value

    def _wrong(self, name: str, value: Any, wanted: str) -> ModelFileError:
        return _refused(self._gguf, f"metadata '{FAMILY}.{name}' is {value!r}; it must be {wanted}")

    def count(self, name: str, default: int | None = None, most: int = 1 << 31) -> int:
        value = self._value(name, default)
        if not isinstance(value, int) or not 1 <= value <= most:
            raise self._wrong(name, value, f"a whole number from 1 to {most}")
        return value

    def number(self, name: str, default: float | None, least: float) -> float:
        value = self._value(name, default)
        if not isinstance(value, float) or not least <= value < float("inf"):
            raise self._wrong(name, value, f"a number of at least {least:g}")
        return value

    def must_be(self, name: str, only: Any) -> None:
        """What is computed in one way alone; a file that says nothing means that."""
        value = self._value(name, only)
        if value != only:
            raise self._wrong(name, value, f"{only!r}, the only one known here")


def _vocabulary(gguf: Gguf) -> int:
    tokens = gguf.metadata.get("tokenizer.ggml.tokens")
    if not isinstance(tokens, list) or not tokens:
        raise _refused(gguf, "it has no tokens ('tokenizer.ggml.tokens')")
    return len(tokens)


def _refused(gguf: Gguf, cause: str) -> ModelFileError:
    return ModelFileError(f"model file {gguf.path}: {cause}; give another GGUF file")
