"""A chat model of two layers and random weights: it babbles, but starts at once and decodes a token in 0.2 ms."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from gguf_file import KINDS, Tensor, blocks, gguf

LAYERS, WIDTH, HIDDEN, HEADS, KV_HEADS, HEAD_DIM = 2, 64, 128, 2, 1, 32
CONTEXT = 1 << 14
CONTROL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<repo_name>", "<file_sep>"]
END = CONTROL.index("<|im_end|>")
# Each is one token, and so is each of its beginnings.
WORDS = ["system", "user", "assistant", "Ġthe", "Ġand"]
TEMPLATE = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou babble.<|im_end|>\n' }}{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def write_tiny_llm(folder: Path, *, seed: int = 0) -> Path:
    """Its file. Asked at temperature 0 it never ends by itself, and says letters of ASCII alone.

    `seed` gives another model with the same vocabulary.
    """
    path = folder / "tiny.gguf"
    path.write_bytes(gguf(_metadata(), _tensors(1000 * seed)))
    return path


def _letters() -> list[str]:
    """How byte-level BPE writes the 256 bytes: the visible ones as they are, the others by letters from U+0100 on."""
    visible = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    hidden = iter(range(0x100, 0x200))
    return [chr(byte if byte in visible else next(hidden)) for byte in range(256)]


def _beginnings() -> list[str]:
    """Of the words, from two letters on."""
    return [word[:end] for word in WORDS for end in range(2, len(word) + 1)]


def _tokens() -> list[str]:
    return [*CONTROL, *_letters(), *_beginnings()]


def _metadata() -> dict[str, Any]:
    tokens = _tokens()
    return {
        "general.architecture": "llama",
        "general.name": "tiny",
        "llama.block_count": LAYERS,
        "llama.context_length": CONTEXT,
        "llama.embedding_length": WIDTH,
        "llama.feed_forward_length": HIDDEN,
        "llama.attention.head_count": HEADS,
        "llama.attention.head_count_kv": KV_HEADS,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "llama.rope.freq_base": 1e4,
        "llama.rope.dimension_count": HEAD_DIM,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": np.array([3] * len(CONTROL) + [1] * (len(tokens) - len(CONTROL)), np.int32),
        "tokenizer.ggml.merges": [f"{each[:-1]} {each[-1]}" for each in _beginnings()],
        "tokenizer.ggml.eos_token_id": END,
        "tokenizer.chat_template": TEMPLATE,
    }


def _tensors(seed: int) -> dict[str, Tensor]:
    keys = HEAD_DIM * KV_HEADS
    tensors = {"token_embd": _embedding(), "output_norm": blocks("F32", WIDTH)}
    for layer in range(LAYERS):
        shapes = {
            "attn_q": (WIDTH, WIDTH),
            "attn_k": (keys, WIDTH),
            "attn_v": (keys, WIDTH),
            "attn_output": (WIDTH, WIDTH),
            "ffn_gate": (HIDDEN, WIDTH),
            "ffn_up": (HIDDEN, WIDTH),
            "ffn_down": (WIDTH, HIDDEN),
        }
        for name, shape in shapes.items():
            # With 0.02, the spread of real weights, the logits of so small a model would hardly differ.
            tensors[f"blk.{layer}.{name}"] = blocks("Q4_1", *shape, seed=seed + len(tensors), scale=0.5)
        for name in ("attn_norm", "ffn_norm"):
            tensors[f"blk.{layer}.{name}"] = blocks("F32", WIDTH, seed=seed + len(tensors))
    return {f"{name}.weight": tensor for name, tensor in tensors.items()}


def _embedding() -> Tensor:
    """Zeros for control tokens and for bytes that are no visible ASCII: their logits are 0, never the highest."""
    kind, shape, data = blocks("Q8_0", len(_tokens()), WIDTH, scale=0.5)
    rows = np.frombuffer(data, np.uint8).reshape(shape[0], WIDTH // 32 * KINDS[kind][2]).copy()
    visible = {*map(chr, range(0x21, 0x7F)), *_beginnings()}
    rows[[token not in visible for token in _tokens()]] = 0
    return kind, shape, rows.tobytes()
