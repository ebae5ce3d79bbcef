"""Writes the network of a GGUF file as an ONNX graph with its weights beside it: "q4x", 4-bit weights, exact.

    token ids -> embeddings -> layers x [norm, QKV, attention, output, norm, gate * up, down] -> rows -> norm -> logits

Inputs: `input_ids` int64 [B, S]; `seqlens_k` int32 [B], the length of each sequence with this call's tokens, less one;
`total_len` int32 [1], the longest such length; `rows` int64 [R], which of the B * S places want logits, counted row by
row; `past.{layer}.key` and `.value` float32 [B, kv_heads, M, head_dim], with room for M tokens.
Outputs: `logits` float32 [R, vocabulary]; `present.{layer}.key` and `.value`, which may be the buffers of the past.

Attention takes S > 1 after a past only for B = 1, and S = 1 for any B.
The operations outside ONNX's own are those of ONNX Runtime (ContribOperators.md, domain com.microsoft).
Needs the package `onnx`: only a conversion imports this module.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from .architecture import Architecture
from .gguf import Gguf, GgufTensor, ModelFileError
from .quantisation import BLOCK, Blocks, decode, dequantise, pack

MODEL_FILE = "model.onnx"
WEIGHTS_FILE = "weights.bin"
OPSET, IR_VERSION = 21, 10
CONTRIB = "com.microsoft"
# Where tensors begin in the file of weights: a cache line.
ALIGNMENT = 64
_FLOAT, _UINT8, _INT32, _INT64 = TensorProto.FLOAT, TensorProto.UINT8, TensorProto.INT32, TensorProto.INT64
_TYPES = {np.dtype(np.float32): _FLOAT, np.dtype(np.uint8): _UINT8}


def write(gguf: Gguf, architecture: Architecture, folder: Path, *, accuracy_level: int = 4) -> Path:
    """Writes `folder`/model.onnx and weights.bin, and says where the model is.

    `accuracy_level` is that of MatMulNBits: 4 multiplies in int8, 0 in float32 (exact, and many times slower).
    Raises `ModelFileError` for tensors that are missing, unknown, or of another shape or kind than needed.
    """
    with open(folder / WEIGHTS_FILE, "wb") as file:
        network = _Network(_Source(gguf), architecture, _Weights(file), accuracy_level)
        graph = network.graph()
    imports = [helper.make_opsetid("", OPSET), helper.make_opsetid(CONTRIB, 1)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=IR_VERSION, producer_name="slabwire")
    path = folder / MODEL_FILE
    path.write_bytes(model.SerializeToString())
    return path


class _Source:
    """The tensors of a file, each of which must be used: what is not understood would be computed wrongly."""

    def __init__(self, gguf: Gguf) -> None:
        self._path = gguf.path
        self._tensors = dict(gguf.tensors)

    def has(self, name: str) -> bool:
        return name in self._tensors

    def take(self, name: str, *shape: int) -> GgufTensor:
        tensor = self._tensors.pop(name, None)
        if tensor is None:
            raise self.refused(f"tensor {name!r} is missing")
        if tensor.shape != shape:
            raise self.refused(f"tensor {name!r} is {list(tensor.shape)}, its metadata mean {list(shape)}")
        return tensor

    def take_blocks(self, name: str, outputs: int, inputs: int) -> Blocks:
        tensor = self.take(name, outputs, inputs)
        try:
            return decode(tensor)
        except ModelFileError as error:
            raise ModelFileError(f"model file {self._path}: {error}") from None

    def end(self) -> None:
        if self._tensors:
            some = ", ".join(sorted(self._tensors)[:3])
            raise self.refused(f"it has {len(self._tensors)} tensors whose use is not known here, such as {some}")

    def refused(self, cause: str) -> ModelFileError:
        return ModelFileError(f"model file {self._path}: {cause}; give another GGUF file")


class _Weights:
    """The file of weights, and the initializers that lie in it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.initializers: list[TensorProto] = []

    def add(self, name: str, values: NDArray[Any]) -> str:
        """Appends the values; their name."""
        self._file.write(bytes(-self._file.tell() % ALIGNMENT))
        place = self._file.tell()
        self._file.write(np.ascontiguousarray(values).data)
        return self._declare(name, _TYPES[values.dtype], values.shape, place, values.nbytes)

    def numbers(self, name: str, *values: int) -> str:
        """A few numbers inside the model itself, once under one name."""
        if all(each.name != name for each in self.initializers):
            self.initializers.append(helper.make_tensor(name, _INT64, [len(values)], values))
        return name

    def again(self, name: str, other: str, shape: Sequence[int]) -> str:
        """The bytes of another initializer, under another name and shape."""
        tensor = next(each for each in self.initializers if each.name == other)
        place = {each.key: int(each.value) for each in tensor.external_data if each.key != "location"}
        return self._declare(name, tensor.data_type, shape, place["offset"], place["length"])

    def _declare(self, name: str, data_type: int, shape: Sequence[int], offset: int, length: int) -> str:
        tensor = TensorProto(name=name, dims=shape, data_type=data_type, data_location=TensorProto.EXTERNAL)
        for key, value in (("location", WEIGHTS_FILE), ("offset", str(offset)), ("length", str(length))):
            tensor.external_data.add(key=key, value=value)
        self.initializers.append(tensor)
        return name


@dataclass(frozen=True)
class _Matrix:
    """The initializers of a quantised weight [outputs, inputs]."""

    bits: int
    outputs: int
    inputs: int
    weights: str
    scales: str
    zeros: str
    correction: str | None


class _Network:
    """Collects nodes. A method adds some and says the name of the value that they make."""

    def __init__(self, source: _Source, architecture: Architecture, weights: _Weights, accuracy_level: int) -> None:
        self._source = source
        self._of = architecture
        self._weights = weights
        self._accuracy_level = accuracy_level
        self._nodes: list[onnx.NodeProto] = []
        self._sums: dict[str, str] = {}

    def graph(self) -> onnx.GraphProto:
        of = self._of
        embedding = self._matrix("embedding", self._blocks("token_embd", of.vocabulary, of.width))
        head = embedding
        if self._source.has("output.weight"):
            head = self._matrix("head", self._blocks("output", of.vocabulary, of.width))
        angles = self._angles()
        hidden, added = self._layer(0, self._embedded(embedding), None, angles)
        for layer in range(1, of.layers):
            hidden, added = self._layer(layer, hidden, added, angles)
        self._logits(hidden, added, head)
        self._source.end()
        return helper.make_graph(self._nodes, "q4x", self._inputs(), self._outputs(), self._weights.initializers)

    def _embedded(self, matrix: _Matrix) -> str:
        if matrix.correction is not None:
            raise self._source.refused("tensor 'token_embd.weight' is Q4_1, and must be Q8_0 or Q4_0")
        # The bytes of a row lie together: where the head has the same weights, the two count them in other dimensions.
        rows = self._weights.again("embedding.rows", matrix.weights, [matrix.outputs, matrix.inputs * matrix.bits // 8])
        return self._add(
            "GatherBlockQuantized",
            [rows, "input_ids", matrix.scales, matrix.zeros],
            "embedded",
            gather_axis=0,
            quantize_axis=1,
            bits=matrix.bits,
            block_size=BLOCK,
        )

    def _angles(self) -> list[str]:
        """Cosines and sines of the rotary embedding [context, head_dim / 2] (RoFormer, section 3.4.2)."""
        half = self._of.head_dim // 2
        angles = np.outer(np.arange(self._of.context), self._of.rope_theta ** (-np.arange(half) / half))
        return [self._weights.add(each.__name__, each(angles).astype(np.float32)) for each in (np.cos, np.sin)]

    def _layer(self, layer: int, hidden: str, added: str | None, angles: Sequence[str]) -> tuple[str, str]:
        """The sum of all before this layer, and what it adds to it."""
        of, name, block = self._of, f"layer.{layer}", f"blk.{layer}"
        normal, hidden = self._norm(f"{name}.attention_norm", f"{block}.attn_norm", hidden, added)
        qkv = self._product(f"{name}.qkv", normal, self._matrix(f"{name}.qkv", self._qkv(block)))
        attended = self._attention(layer, qkv, angles)
        output = self._weight(f"{name}.output", attended, f"{block}.attn_output", of.width, of.heads * of.head_dim)
        normal, hidden = self._norm(f"{name}.norm", f"{block}.ffn_norm", hidden, output)
        gate = self._weight(f"{name}.gate", normal, f"{block}.ffn_gate", of.hidden, of.width)
        up = self._weight(f"{name}.up", normal, f"{block}.ffn_up", of.hidden, of.width)
        # x * sigmoid(x), the SiLU, is a QuickGelu of alpha 1.
        opened = self._add("QuickGelu", [gate], f"{name}.opened", alpha=1.0)
        passed = self._add("Mul", [opened, up], f"{name}.passed", domain="")
        return hidden, self._weight(f"{name}.down", passed, f"{block}.ffn_down", of.width, of.hidden)

    def _logits(self, hidden: str, added: str, head: _Matrix) -> None:
        total = self._add("Add", [hidden, added], "total", domain="")
        places = self._weights.numbers("places", -1, self._of.width)
        flat = self._add("Reshape", [total, places], "flat_total", domain="")
        wanted = self._add("Gather", [flat, "rows"], "wanted", domain="", axis=0)
        normal, _ = self._norm("norm", "output_norm", wanted, None)
        self._product("logits", normal, head, leading=1)

    def _norm(self, name: str, tensor: str, hidden: str, added: str | None) -> tuple[str, str]:
        """The RMS norm of hidden + added, and that sum."""
        factor = self._weights.add(f"{name}.factor", dequantise(self._source.take(f"{tensor}.weight", self._of.width)))
        epsilon = self._of.epsilon
        if added is None:
            inputs = [hidden, factor]
            return self._add("SimplifiedLayerNormalization", inputs, name, domain="", axis=-1, epsilon=epsilon), hidden
        total = f"{name}.total"
        inputs = [hidden, added, factor]
        self._add("SkipSimplifiedLayerNormalization", inputs, name, "", "", total, epsilon=epsilon)
        return name, total

    def _attention(self, layer: int, qkv: str, angles: Sequence[str]) -> str:
        past = [f"past.{layer}.key", f"past.{layer}.value"]
        return self._add(
            "GroupQueryAttention",
            [qkv, "", "", *past, "seqlens_k", "total_len", *angles],
            f"layer.{layer}.attended",
            f"present.{layer}.key",
            f"present.{layer}.value",
            num_heads=self._of.heads,
            kv_num_heads=self._of.kv_heads,
            do_rotary=1,
            rotary_interleaved=0,
        )

    def _qkv(self, block: str) -> Blocks:
        """Queries, keys and values in one weight."""
        of = self._of
        queries = self._blocks(f"{block}.attn_q", of.heads * of.head_dim, of.width).rows(self._halves(of.heads))
        keys = self._blocks(f"{block}.attn_k", of.kv_heads * of.head_dim, of.width).rows(self._halves(of.kv_heads))
        values = self._blocks(f"{block}.attn_v", of.kv_heads * of.head_dim, of.width)
        if not queries.bits == keys.bits == values.bits:
            raise self._source.refused(f"the queries, keys and values of {block} are not of as many bits")
        return Blocks.stack([queries, keys, values])

    def _halves(self, heads: int) -> NDArray[np.intp]:
        """The rows of heads in two halves: in the file, the two numbers that are turned together are neighbours."""
        rows = np.arange(heads * self._of.head_dim).reshape(heads, self._of.head_dim // 2, 2)
        return rows.swapaxes(1, 2).reshape(-1)

    def _weight(self, name: str, operand: str, tensor: str, outputs: int, inputs: int) -> str:
        return self._product(name, operand, self._matrix(name, self._blocks(tensor, outputs, inputs)))

    def _blocks(self, tensor: str, outputs: int, inputs: int) -> Blocks:
        return self._source.take_blocks(f"{tensor}.weight", outputs, inputs)

    def _matrix(self, name: str, blocks: Blocks) -> _Matrix:
        packed = pack(blocks)
        outputs, inputs = len(packed.scales), packed.scales.shape[1] * BLOCK
        weights = self._weights.add(f"{name}.weights", packed.weights)
        scales = self._weights.add(f"{name}.scales", packed.scales)
        zeros = self._weights.add(f"{name}.zeros", packed.zeros)
        rest = packed.correction
        correction = None if rest is None else self._weights.add(f"{name}.correction", rest)
        return _Matrix(packed.bits, outputs, inputs, weights, scales, zeros, correction)

    def _product(self, name: str, operand: str, matrix: _Matrix, leading: int = 2) -> str:
        """The operand @ weight.T: [..., inputs] becomes [..., outputs], with so many leading axes."""
        rounded = name if matrix.correction is None else f"{name}.rounded"
        self._add(
            "MatMulNBits",
            [operand, matrix.weights, matrix.scales, matrix.zeros],
            rounded,
            N=matrix.outputs,
            K=matrix.inputs,
            bits=matrix.bits,
            block_size=BLOCK,
            accuracy_level=self._accuracy_level,
        )
        if matrix.correction is None:
            return name
        sums = self._block_sums(operand, leading, matrix.inputs // BLOCK)
        rest = self._add("MatMul", [sums, matrix.correction], f"{name}.rest", domain="")
        return self._add("Add", [rounded, rest], name, domain="")

    def _block_sums(self, operand: str, leading: int, count: int) -> str:
        """The sums of each 32 neighbours: [..., K] becomes [..., K / 32]. Made once for all weights that need them."""
        if operand not in self._sums:
            # The number of blocks is said: it could not be found out where there are no rows.
            shape = self._weights.numbers(f"blocks.{leading}.{count}", *[0] * leading, count, BLOCK)
            cut = self._add("Reshape", [operand, shape], f"{operand}.blocks", domain="")
            last = self._weights.numbers("last", -1)
            self._sums[operand] = self._add("ReduceSum", [cut, last], f"{operand}.sums", domain="", keepdims=0)
        return self._sums[operand]

    def _add(
        self, operation: str, inputs: Sequence[str], output: str, *others: str, domain: str = CONTRIB, **attributes: Any
    ) -> str:
        node = helper.make_node(operation, inputs, [output, *others], name=output, domain=domain, **attributes)
        self._nodes.append(node)
        return output

    def _inputs(self) -> list[onnx.ValueInfoProto]:
        return [
            helper.make_tensor_value_info("input_ids", _INT64, ["B", "S"]),
            helper.make_tensor_value_info("seqlens_k", _INT32, ["B"]),
            helper.make_tensor_value_info("total_len", _INT32, [1]),
            helper.make_tensor_value_info("rows", _INT64, ["R"]),
            *self._caches("past"),
        ]

    def _outputs(self) -> list[onnx.ValueInfoProto]:
        return [
            helper.make_tensor_value_info("logits", _FLOAT, ["R", self._of.vocabulary]),
            *self._caches("present"),
        ]

    def _caches(self, when: str) -> list[onnx.ValueInfoProto]:
        axes: list[str | int | None] = ["B", self._of.kv_heads, "M", self._of.head_dim]
        names = [f"{when}.{layer}.{each}" for layer in range(self._of.layers) for each in ("key", "value")]
        return [helper.make_tensor_value_info(name, _FLOAT, axes) for name in names]
