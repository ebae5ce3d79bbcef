"""Quantised weights: from the blocks of a GGUF file to floats, and to the layout that ONNX Runtime multiplies by.

Every kind here cuts a row into blocks of 32 weights that share a scale d and an offset m: w = d * q + m, with small
unsigned integers q (ggml, ggml-common.h: block_q4_0, block_q4_1, block_q8_0).

MatMulNBits knows w = d * (q - z) with an integer z. Where -m / d is no integer, rounding it would double the
quantisation's noise and ruin the model. So the rest stays: w = d * (q - z) + r with z = round(-m / d), r = m + z * d.
Since r is the same for a whole block, its part of a product is r times the sum of the block's 32 inputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .gguf import GgufTensor, ModelFileError

BLOCK = 32
# Kinds of weights that can be multiplied by.
BLOCK_KINDS = ("Q4_0", "Q4_1", "Q8_0")


@dataclass(frozen=True)
class Blocks:
    """A weight of N outputs and K inputs: q uint8 [N, K/32, 32] below 2 ** bits; d and m float32 [N, K/32]."""

    bits: int
    q: NDArray[np.uint8]
    d: NDArray[np.float32]
    m: NDArray[np.float32]

    def rows(self, order: NDArray[np.intp]) -> Blocks:
        """The outputs in another order: exact, since blocks lie along the inputs."""
        return Blocks(self.bits, self.q[order], self.d[order], self.m[order])

    @classmethod
    def stack(cls, parts: Sequence[Blocks]) -> Blocks:
        """Weights of as many bits and inputs, one below the other."""
        return cls(
            parts[0].bits,
            np.concatenate([each.q for each in parts]),
            np.concatenate([each.d for each in parts]),
            np.concatenate([each.m for each in parts]),
        )


@dataclass(frozen=True)
class Packed:
    """A weight as MatMulNBits takes it (onnxruntime, ContribOperators.md), and the correction that makes it exact.

    `weights` uint8 [N, K/32, 4 * bits], the first of two 4-bit values in the low half of a byte; `scales` float32
    [N, K/32]; `zeros` uint8 [N, bytes of K/32 values], packed alike; `correction` float32 [K/32, N], the factor of the
    blocks' sums, or None where it is zero.
    """

    bits: int
    weights: NDArray[np.uint8]
    scales: NDArray[np.float32]
    zeros: NDArray[np.uint8]
    correction: NDArray[np.float32] | None


def decode(tensor: GgufTensor) -> Blocks:
    """The blocks of a weight [N, K]. Raises `ModelFileError` for a kind that has no such blocks."""
    if tensor.kind not in BLOCK_KINDS or len(tensor.shape) != 2:
        known = ", ".join(BLOCK_KINDS)
        raise ModelFileError(
            f"tensor {tensor.name!r} is {list(tensor.shape)} of {tensor.kind}; weights must be matrices of {known}: "
            "give a GGUF file that was quantised so"
        )
    outputs, inputs = tensor.shape
    blocks = _blocks(tensor.kind, tensor.data.reshape(outputs, inputs // BLOCK, -1))
    if not (np.isfinite(blocks.d).all() and np.isfinite(blocks.m).all()):
        raise ModelFileError(
            f"tensor {tensor.name!r} has scales that are no numbers: its file is damaged; fetch it again"
        )
    return blocks


def _blocks(kind: str, raw: NDArray[np.uint8]) -> Blocks:
    d = _halves(raw, 0)
    if kind == "Q8_0":
        # The bytes are signed; with the sign bit flipped they count from -128.
        return Blocks(8, raw[..., 2:] ^ np.uint8(128), d, d * np.float32(-128))
    if kind == "Q4_0":
        return Blocks(4, _nibbles(raw[..., 2:]), d, d * np.float32(-8))
    return Blocks(4, _nibbles(raw[..., 4:]), d, _halves(raw, 2))


def dequantise(tensor: GgufTensor) -> NDArray[np.float32]:
    """The tensor as float32 of its shape. Raises `ModelFileError` for a kind that is not known here."""
    if tensor.kind == "F32":
        return tensor.data
    if tensor.kind == "F16":
        return tensor.data.view("<f2").astype(np.float32)
    blocks = decode(tensor)
    return (blocks.d[..., None] * blocks.q + blocks.m[..., None]).reshape(tensor.shape)


def pack(blocks: Blocks) -> Packed:
    """The weight in the layout of MatMulNBits, exactly: d * (q - z) + correction is d * q + m."""
    most = 2**blocks.bits - 1
    divisor = np.where(blocks.d == 0, np.float32(1), blocks.d)
    zeros = np.clip(np.rint(-blocks.m / divisor), 0, most).astype(np.float32)
    correction = blocks.m + zeros * blocks.d
    return Packed(
        blocks.bits,
        _pairs(blocks.q, blocks.bits),
        blocks.d,
        _pairs(zeros.astype(np.uint8), blocks.bits),
        np.ascontiguousarray(correction.T) if correction.any() else None,
    )


def _halves(raw: NDArray[np.uint8], at: int) -> NDArray[np.float32]:
    """The float16 at byte `at` of each block."""
    return np.ascontiguousarray(raw[..., at : at + 2]).view("<f2")[..., 0].astype(np.float32)


def _nibbles(raw: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """32 values out of 16 bytes: the low halves are the first 16 values, the high halves the others."""
    return np.concatenate([raw & 15, raw >> 4], axis=-1)


def _pairs(values: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    """Two neighbours a byte if they have 4 bits; an odd last one gets a neighbour of 0."""
    if bits == 8:
        return values
    if values.shape[-1] % 2:
        values = np.concatenate([values, np.zeros_like(values[..., :1])], axis=-1)
    pairs: NDArray[np.uint8] = values[..., 0::2] | values[..., 1::2] << np.uint8(4)
    return pairs
