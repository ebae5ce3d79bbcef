"""Quantised weights: blocks are read as ggml writes them, and packing loses nothing."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from gguf_file import blocks
from slabwire.actors.llm.model_file.gguf import GgufTensor, ModelFileError
from slabwire.actors.llm.model_file.quantisation import BLOCK, Packed, decode, dequantise, pack

Floats = NDArray[np.float32]


def tensor(kind: str, *shape: int) -> GgufTensor:
    _, _, data = blocks(kind, *shape, seed=7)
    raw = np.frombuffer(data, np.float32 if kind == "F32" else np.uint8)
    return GgufTensor("weight", shape, kind, raw.reshape(shape if kind == "F32" else (*shape[:-1], -1)))


def unpacked(packed: Packed) -> Floats:
    """The weight that MatMulNBits and the correction compute with, spelled out value by value."""
    outputs, count = packed.scales.shape
    weight = np.empty((outputs, count, BLOCK), np.float32)
    for row, block, at in np.ndindex(weight.shape):
        q, z = int(packed.weights[row, block, at * packed.bits // 8]), int(packed.zeros[row, block * packed.bits // 8])
        if packed.bits == 4:
            q, z = q >> at % 2 * 4 & 15, z >> block % 2 * 4 & 15
        rest = 0 if packed.correction is None else packed.correction[block, row]
        weight[row, block, at] = packed.scales[row, block] * (q - z) + rest
    return weight.reshape(outputs, -1)


@pytest.mark.parametrize("kind", ["Q4_0", "Q4_1", "Q8_0"])
@pytest.mark.parametrize("inputs", [32, 96, 128])  # an odd number of blocks leaves half a byte of zero points
def test_packing_is_exact(kind: str, inputs: int) -> None:
    weight = tensor(kind, 6, inputs)
    packed = pack(decode(weight))
    assert (packed.correction is None) == (kind != "Q4_1")
    np.testing.assert_allclose(unpacked(packed), dequantise(weight), rtol=0, atol=1e-8)


def test_blocks_are_those_of_ggml() -> None:
    """A block written by hand: of 4-bit values the first half lies in the low halves of the bytes."""
    values = np.arange(32) % 16
    q4 = (values[:16] | values[16:] << 4).astype(np.uint8)
    half, three = np.array([0.5, 3], "<f2").view(np.uint8).reshape(2, 2)
    q8 = np.arange(-16, 16).astype(np.int8).view(np.uint8)
    for kind, parts, expected in (
        ("Q4_0", (half, q4), 0.5 * (values - 8)),
        ("Q4_1", (half, three, q4), 0.5 * values + 3),
        ("Q8_0", (half, q8), 0.5 * np.arange(-16, 16)),
    ):
        np.testing.assert_array_equal(
            dequantise(GgufTensor("w", (1, 32), kind, np.concatenate(parts)[None])), expected[None].astype(np.float32)
        )


def test_plain_floats() -> None:
    assert dequantise(tensor("F32", 3, 5)).dtype == np.float32
    half = tensor("F16", 3, 5)
    np.testing.assert_array_equal(dequantise(half), half.data.view(np.float16))


def test_weights_that_cannot_be_packed() -> None:
    with pytest.raises(
        ModelFileError, match=r"'weight' is \[2, 32\] of F16; weights must be matrices of Q4_0, Q4_1, Q8_0"
    ):
        decode(tensor("F16", 2, 32))
    infinite = tensor("Q8_0", 2, 32)
    data = infinite.data.copy()
    data[1, :2] = np.array([np.inf], "<f2").view(np.uint8)
    with pytest.raises(ModelFileError, match="'weight' has scales that are no numbers"):
        decode(GgufTensor("weight", (2, 32), "Q8_0", data))
