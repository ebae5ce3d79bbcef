"""Writes small GGUF files: enough of the format for a language model of two layers, and no package to write it with."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Numbers of ggml.h, elements and bytes of a block.
KINDS = {"F32": (0, 1, 4), "F16": (1, 1, 2), "Q4_0": (2, 32, 18), "Q4_1": (3, 32, 20), "Q8_0": (8, 32, 34)}
_TYPES = {"u1": 0, "i1": 1, "u2": 2, "i2": 3, "u4": 4, "i4": 5, "f4": 6, "b1": 7, "u8": 10, "i8": 11, "f8": 12}
Tensor = tuple[str, tuple[int, ...], bytes]  # kind, shape with the last axis together, blocks


def gguf(
    metadata: Mapping[str, Any], tensors: Mapping[str, Tensor], version: int = 3, alignment: int | None = None
) -> bytes:
    """The bytes of a file. Ints become uint32, floats float32; numpy's scalars and arrays keep their type."""
    if alignment is not None:
        metadata = {**metadata, "general.alignment": alignment}
    head = [b"GGUF", struct.pack("<IQQ", version, len(tensors), len(metadata))]
    head += [_text(key) + _value(value) for key, value in metadata.items()]
    body = b""
    for name, (kind, shape, data) in tensors.items():
        body += bytes(-len(body) % (alignment or 32))
        head.append(_text(name) + struct.pack(f"<I{len(shape)}Q", len(shape), *shape[::-1]))
        head.append(struct.pack("<IQ", KINDS[kind][0], len(body)))
        body += data
    written = b"".join(head)
    return written + bytes(-len(written) % (alignment or 32)) + body


def _text(text: str) -> bytes:
    return struct.pack("<Q", len(text.encode())) + text.encode()


def _value(value: Any) -> bytes:
    if isinstance(value, str):
        return struct.pack("<I", 8) + _text(value)
    if isinstance(value, list):
        return struct.pack("<IIQ", 9, 8, len(value)) + b"".join(map(_text, value))
    array = _array(value)
    number = struct.pack("<I", _TYPES[array.dtype.str[1:]])
    return (struct.pack("<I", 9) + number + struct.pack("<Q", array.size) if array.ndim else number) + array.tobytes()


def _array(value: Any) -> NDArray[Any]:
    if isinstance(value, bool | np.ndarray | np.generic):
        return np.asarray(value)
    return np.asarray(value, np.uint32 if isinstance(value, int) else np.float32)


def blocks(kind: str, *shape: int, seed: int = 0, scale: float = 0.02) -> Tensor:
    """A tensor of random blocks, whose weights lie around zero."""
    random = np.random.default_rng(seed)
    if kind == "F32":
        return kind, shape, random.normal(1, scale, shape).astype("<f4").tobytes()
    if kind == "F16":
        return kind, shape, random.normal(1, scale, shape).astype("<f2").tobytes()
    elements, nbytes = KINDS[kind][1:]
    count = int(np.prod(shape)) // elements
    raw = random.integers(0, 256, (count, nbytes), np.uint8)
    d = (random.uniform(0.5, 1.5, count) * scale / (64 if kind == "Q8_0" else 4)).astype("<f2")
    raw[:, :2] = d.view(np.uint8).reshape(count, 2)
    if kind == "Q4_1":
        m = (d * -random.uniform(6, 9, count)).astype("<f2")
        raw[:, 2:4] = m.view(np.uint8).reshape(count, 2)
    return kind, shape, raw.tobytes()


LAYERS, WIDTH, HIDDEN, HEADS, KV_HEADS, VOCABULARY = 2, 64, 96, 4, 2, 64
TINY: Mapping[str, Any] = {
    "general.architecture": "llama",
    "general.name": "tiny",
    "llama.block_count": LAYERS,
    "llama.context_length": 128,
    "llama.embedding_length": WIDTH,
    "llama.feed_forward_length": HIDDEN,
    "llama.attention.head_count": HEADS,
    "llama.attention.head_count_kv": KV_HEADS,
    "llama.attention.layer_norm_rms_epsilon": 1e-5,
    "llama.rope.freq_base": 1e4,
    "llama.rope.dimension_count": WIDTH // HEADS,
    "tokenizer.ggml.model": "gpt2",
    "tokenizer.ggml.tokens": [f"t{each}" for each in range(VOCABULARY)],
    "tokenizer.ggml.token_type": np.ones(VOCABULARY, np.int32),
}


def tiny_tensors(kind: str = "Q4_1", embedding: str = "Q8_0", output: str | None = None) -> dict[str, Tensor]:
    """The tensors of a model of the sizes above: weights of `kind`, and a head of its own if `output` says its kind."""
    keys = WIDTH // HEADS * KV_HEADS
    shapes = {"token_embd": (embedding, (VOCABULARY, WIDTH)), "output_norm": ("F32", (WIDTH,))}
    if output is not None:
        shapes["output"] = (output, (VOCABULARY, WIDTH))
    for layer in range(LAYERS):
        rows: Sequence[tuple[str, int, int]] = (
            ("attn_q", WIDTH, WIDTH),
            ("attn_k", keys, WIDTH),
            ("attn_v", keys, WIDTH),
            ("attn_output", WIDTH, WIDTH),
            ("ffn_gate", HIDDEN, WIDTH),
            ("ffn_up", HIDDEN, WIDTH),
            ("ffn_down", WIDTH, HIDDEN),
        )
        shapes |= {f"blk.{layer}.{name}": (kind, (outputs, inputs)) for name, outputs, inputs in rows}
        shapes |= {f"blk.{layer}.{name}": ("F32", (WIDTH,)) for name in ("attn_norm", "ffn_norm")}
    # Large enough for the logits to differ: with 0.02, the spread of real weights, so small a model says nothing.
    return {
        f"{name}.weight": blocks(kind, *shape, seed=seed, scale=0.5)
        for seed, (name, (kind, shape)) in enumerate(shapes.items())
    }


def tiny_model(kind: str = "Q4_1", embedding: str = "Q8_0", output: str | None = None, **metadata: Any) -> bytes:
    """A whole model file. Keyword arguments replace metadata of the family, dots written as double underscores."""
    changed = {f"llama.{key.replace('__', '.')}": value for key, value in metadata.items()}
    return gguf({**TINY, **changed}, tiny_tensors(kind, embedding, output))
