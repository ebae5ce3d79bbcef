"""Small ONNX models, written byte by byte: enough of onnx.proto3 for a few nodes, and no package to write it with."""

from __future__ import annotations

from collections.abc import Sequence

FLOAT, INT64, STRING = 1, 7, 8  # TensorProto.DataType
Axes = Sequence[int | str]
Value = tuple[str, int, Axes]
Node = tuple[str, Sequence[str], Sequence[str]]


def _varint(number: int) -> bytes:
    head, rest = number & 0x7F, number >> 7
    return bytes([head | 0x80]) + _varint(rest) if rest else bytes([head])


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _bytes(field: int, value: bytes | str) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return _varint(field << 3 | 2) + _varint(len(data)) + data


def _axis(axis: int | str) -> bytes:
    return _bytes(1, _bytes(2, axis) if isinstance(axis, str) else _number(1, axis))


def _value(value: Value) -> bytes:
    name, element, axes = value
    shape = _bytes(2, b"".join(_axis(axis) for axis in axes))
    return _bytes(1, name) + _bytes(2, _bytes(1, _number(1, element) + shape))


def _node(node: Node) -> bytes:
    operation, inputs, outputs = node
    return b"".join(
        [*(_bytes(1, each) for each in inputs), *(_bytes(2, each) for each in outputs), _bytes(4, operation)]
    )


def model(nodes: Sequence[Node], inputs: Sequence[Value], outputs: Sequence[Value]) -> bytes:
    """A model of opset 17 out of nodes (operation, inputs, outputs) and values (name, element type, axes)."""
    graph = [
        *(_bytes(1, _node(node)) for node in nodes),
        _bytes(2, "tiny"),
        *(_bytes(11, _value(value)) for value in inputs),
        *(_bytes(12, _value(value)) for value in outputs),
    ]
    return _number(1, 8) + _bytes(7, b"".join(graph)) + _bytes(8, _bytes(1, "") + _number(2, 17))
