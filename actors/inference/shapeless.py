"""Which inputs and outputs of a model file say no shape at all: ONNX Runtime shows them as it shows scalars."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path

# Numbers of fields in onnx.proto3: ModelProto.graph, GraphProto.input and .output, ValueInfoProto.name and .type,
# TypeProto.tensor_type, TypeProto.Tensor.shape.
_GRAPH, _INPUT, _OUTPUT, _NAME, _TYPE, _TENSOR_TYPE, _SHAPE = 7, 11, 12, 1, 2, 1, 2
# Protocol Buffers, "Encoding": how a field's value is laid out.
_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5

Span = tuple[int, int]


class _NoMessage(Exception):
    """Bytes that are no Protocol Buffers."""


def shapeless(path: Path) -> frozenset[str] | None:
    """Their names. None for a file in another format than onnx.proto3, such as ONNX Runtime's own: nobody can tell.

    Weights are skipped, not read.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as data:
        try:
            values = [
                value
                for graph in _inner(data, (0, len(data)), _GRAPH)
                for number in (_INPUT, _OUTPUT)
                for value in _inner(data, graph, number)
            ]
            return frozenset(_name(data, value) for value in values if not _has_shape(data, value))
        except (_NoMessage, UnicodeDecodeError):
            return None


def _name(data: mmap.mmap, value: Span) -> str:
    return "".join(data[start:end].decode() for start, end in _inner(data, value, _NAME))


def _has_shape(data: mmap.mmap, value: Span) -> bool:
    tensors = (tensor for kind in _inner(data, value, _TYPE) for tensor in _inner(data, kind, _TENSOR_TYPE))
    return any(True for tensor in tensors for _ in _inner(data, tensor, _SHAPE))


def _inner(data: mmap.mmap, span: Span, number: int) -> Iterator[Span]:
    """Where the messages and texts lie that are a message's fields of that number."""
    at, end = span
    while at < end:
        tag, at = _varint(data, at, end)
        kind, start = tag & 7, at
        if kind == _VARINT:
            _, at = _varint(data, at, end)
        elif kind == _LENGTH:
            length, start = _varint(data, at, end)
            at = start + length
        elif kind in (_FIXED64, _FIXED32):
            at += 8 if kind == _FIXED64 else 4
        else:
            raise _NoMessage
        if at > end:
            raise _NoMessage
        if tag >> 3 == number:
            if kind != _LENGTH:
                raise _NoMessage
            yield start, at


def _varint(data: mmap.mmap, at: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while at < end and shift < 64:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
    raise _NoMessage
