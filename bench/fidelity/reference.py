"""The network of a GGUF file in float32 with numpy alone: what the logits of every other way are held against.

It shares nothing with the ONNX graph but the reading of the file. The graph un-permutes the rows of queries and keys;
here they stay as they lie in the file, where the two numbers that are turned together are neighbours (llama.cpp,
`permute` of its converter), and are turned so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...actors.llm.model_file.architecture import Architecture
from ...actors.llm.model_file.gguf import Gguf, GgufTensor
from ...actors.llm.model_file.quantisation import decode, dequantise, pack

Floats = NDArray[np.float32]
Tokens = NDArray[np.integer]
Weight = Callable[[GgufTensor], Floats]


def reference_logits(gguf: Gguf, prompts: Sequence[Tokens], weight: Weight = dequantise) -> list[Floats]:
    """Logits float32 [n, vocabulary] of every position of each prompt, int [n].

    `weight` makes floats of a tensor. All prompts go through a layer before the next layer's weights are made, so that
    the whole network is never in memory. Raises `ModelFileError` for a file that is not understood.
    """
    network = _Network(gguf, Architecture.of(gguf), weight)
    embedding = network.weight("token_embd")
    hidden = [embedding[tokens] for tokens in prompts]
    for index in range(network.of.layers):
        layer = network.layer(index)
        hidden = [layer.forward(each) for each in hidden]
    head = network.weight("output") if "output.weight" in gguf.tensors else embedding
    norm = network.weight("output_norm")
    return [_normal(each, norm, network.of.epsilon) @ head.T for each in hidden]


def rounded(tensor: GgufTensor) -> Floats:
    """A tensor as it would be if its zero points were rounded to integers and what is lost were not added again."""
    exact = dequantise(tensor)
    if tensor.kind == "F32":
        return exact
    blocks = decode(tensor)
    correction = pack(blocks).correction
    lost = np.zeros_like(blocks.d) if correction is None else correction.T
    return (exact.reshape(blocks.q.shape) - lost[..., None]).reshape(exact.shape)


class _Network:
    """Makes the weights of a file, a layer at a time."""

    def __init__(self, gguf: Gguf, architecture: Architecture, weight: Weight) -> None:
        self._gguf = gguf
        self._weight = weight
        self.of = architecture

    def weight(self, name: str) -> Floats:
        return self._weight(self._gguf.tensors[f"{name}.weight"])

    def layer(self, index: int) -> _Layer:
        names = ("attn_norm", "attn_q", "attn_k", "attn_v", "attn_output", "ffn_norm", "ffn_gate", "ffn_up", "ffn_down")
        return _Layer(self.of, *(self.weight(f"blk.{index}.{name}") for name in names))


@dataclass(frozen=True)
class _Layer:
    """The weights of one block, each [outputs, inputs]."""

    of: Architecture
    attention_norm: Floats
    queries: Floats
    keys: Floats
    values: Floats
    output: Floats
    norm: Floats
    gate: Floats
    up: Floats
    down: Floats

    def forward(self, hidden: Floats) -> Floats:
        """[n, width] to [n, width]: attention and the feed-forward part, each added to what came in."""
        hidden = hidden + self._attended(_normal(hidden, self.attention_norm, self.of.epsilon)) @ self.output.T
        normal = _normal(hidden, self.norm, self.of.epsilon)
        gate = normal @ self.gate.T
        opened = gate / (1 + np.exp(-gate))  # SiLU
        result: Floats = hidden + (opened * (normal @ self.up.T)) @ self.down.T
        return result

    def _attended(self, normal: Floats) -> Floats:
        """Attention in which several heads of queries share one of keys and values (GQA, arXiv 2305.13245)."""
        of, positions = self.of, len(normal)
        queries = _turned(self._by_head(normal @ self.queries.T), of.rope_theta)
        keys = _turned(self._by_head(normal @ self.keys.T), of.rope_theta)
        values = self._by_head(normal @ self.values.T)
        scores = queries @ keys.swapaxes(2, 3) * np.float32(of.head_dim**-0.5)
        scores[..., ~np.tri(positions, dtype=bool)] = -np.inf  # nobody looks ahead
        powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
        attended: Floats = powers / powers.sum(axis=-1, keepdims=True) @ values
        return attended.transpose(2, 0, 1, 3).reshape(positions, of.heads * of.head_dim)

    def _by_head(self, vectors: Floats) -> Floats:
        """[n, heads * head_dim] to [heads of keys, heads that share one, n, head_dim]."""
        return vectors.reshape(len(vectors), self.of.kv_heads, -1, self.of.head_dim).transpose(1, 2, 0, 3)


def _normal(hidden: Floats, factor: Floats, epsilon: float) -> Floats:
    """RMS norm (arXiv 1910.07467)."""
    mean_square = np.mean(hidden * hidden, axis=-1, keepdims=True)
    result: Floats = hidden / np.sqrt(mean_square + np.float32(epsilon)) * factor
    return result


def _turned(heads: Floats, theta: float) -> Floats:
    """Rotary embedding (RoFormer, section 3.4.2) of [..., n, head_dim]: the numbers 2 i and 2 i + 1 make a pair."""
    positions, head_dim = heads.shape[-2:]
    angles = np.outer(np.arange(positions), theta ** (-np.arange(0, head_dim, 2) / head_dim))
    turns = np.exp(1j * angles).astype(np.complex64)
    return (np.ascontiguousarray(heads).view(np.complex64) * turns).view(np.float32)
