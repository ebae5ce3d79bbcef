"""What a model takes and gives: names, dtypes and shapes, and the check of inputs against them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...runtime.errors import MessageError, SlabwireError
from ...shm.tensor import dtype_named

# ONNX's names of the element types that numpy has too (onnx.proto3, TensorProto.DataType, as ONNX Runtime spells them).
ELEMENT_TYPES: Mapping[str, type[np.generic]] = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(float16)": np.float16,
    "tensor(int8)": np.int8,
    "tensor(int16)": np.int16,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
    "tensor(uint8)": np.uint8,
    "tensor(uint16)": np.uint16,
    "tensor(uint32)": np.uint32,
    "tensor(uint64)": np.uint64,
    "tensor(bool)": np.bool_,
}
# Those that the package ml_dtypes adds to numpy: its name, and TensorProto.DataType's number, by which ONNX Runtime
# knows them where it knows no such numpy type. Of 4 bits there are none: ONNX packs two to a byte, ml_dtypes one.
EXTENSION_TYPES: Mapping[str, tuple[str, int]] = {
    "tensor(bfloat16)": ("bfloat16", 16),
    "tensor(float8e4m3fn)": ("float8_e4m3fn", 17),
    "tensor(float8e4m3fnuz)": ("float8_e4m3fnuz", 18),
    "tensor(float8e5m2)": ("float8_e5m2", 19),
    "tensor(float8e5m2fnuz)": ("float8_e5m2fnuz", 20),
}


class ModelError(SlabwireError):
    """A model that cannot be loaded, or that failed while it ran."""

    code = "model"


@dataclass(frozen=True)
class Port:
    """An input or an output of a model. An axis is an int where it is fixed, a str where it is named, else None. Where
    the model says not even how many there are `shape` is None. `element` is its type as ONNX Runtime takes it.
    """

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int | str | None, ...] | None
    element: type[np.generic] | int

    def __str__(self) -> str:
        if self.shape is None:
            return f"{self.dtype}[...]"
        axes = ", ".join("?" if axis is None else str(axis) for axis in self.shape)
        return f"{self.dtype}[{axes}]"

    def fits(self, shape: tuple[int, ...]) -> bool:
        if self.shape is None:
            return True
        axes = zip(self.shape, shape, strict=False)
        return len(shape) == len(self.shape) and all(axis == size for axis, size in axes if isinstance(axis, int))

    def resolve(self, named: Mapping[str, int]) -> tuple[int, ...] | None:
        """The whole shape, given the sizes of named axes; None where one is still open."""
        if self.shape is None:
            return None
        sizes = [named.get(axis) if isinstance(axis, str) else axis for axis in self.shape]
        return tuple(size for size in sizes if size is not None) if None not in sizes else None


def port_of(node: Any, model: str, *, has_shape: bool) -> Port:
    """From ONNX Runtime's description of one input or output, which shows no axes for a scalar, nor where the model
    says no shape (not `has_shape`). `ModelError` for what no array of this actor can hold.
    """
    shape = tuple(_axis(axis) for axis in node.shape) if node.shape or has_shape else None
    if node.type in EXTENSION_TYPES:
        name, number = EXTENSION_TYPES[node.type]
        return Port(node.name, _extension(name, node.name, model), shape, number)
    element = ELEMENT_TYPES.get(node.type)
    if element is None:
        taken = ", ".join(sorted((*ELEMENT_TYPES, *EXTENSION_TYPES)))
        raise ModelError(
            f"model {model}: {node.name!r} is a {node.type}, which this actor neither takes nor gives; "
            f"export the model with one of these there: {taken}"
        )
    return Port(node.name, np.dtype(element), shape, element)


def _extension(name: str, port: str, model: str) -> np.dtype[Any]:
    try:
        return dtype_named(name.encode())
    except MessageError as error:
        raise ModelError(f"model {model}: {port!r} is {name}: {error}") from None


def _axis(axis: Any) -> int | str | None:
    if isinstance(axis, int):
        return axis if axis >= 0 else None
    # Some exporters write "?" for every axis that they do not know: the same text, yet not the same size.
    return axis if isinstance(axis, str) and axis not in ("", "?") else None


def feeds_of(inputs: Any, ports: Sequence[Port], model: str) -> dict[str, NDArray[Any]]:
    """The tensor of each input, checked: contiguous, of the right dtype and rank, its fixed axes right.

    `inputs` is a dict by input name, or the bare tensor of a model with a single input. Raises `MessageError`.
    """
    if not isinstance(inputs, Mapping):
        if len(ports) != 1:
            names = ", ".join(repr(port.name) for port in ports)
            raise MessageError(f"model {model} has {len(ports)} inputs: send a dict with {names}, not one bare value")
        inputs = {ports[0].name: inputs}
    known = {port.name for port in ports}
    unknown = sorted(str(name) for name in inputs if name not in known)
    if unknown:
        raise MessageError(f"model {model} has no input {', '.join(unknown)}; its inputs: {_listed(ports)}")
    missing = [port for port in ports if port.name not in inputs]
    if missing:
        raise MessageError(f"model {model}: missing input {_listed(missing)}")
    return {port.name: _checked(inputs[port.name], port, model) for port in ports}


def _listed(ports: Sequence[Port]) -> str:
    return ", ".join(f"{port.name} ({port})" for port in ports)


def _checked(value: Any, port: Port, model: str) -> NDArray[Any]:
    where = f"model {model}, input {port.name}"
    if isinstance(value, (bool, int, float)) and not port.shape:
        value = np.asarray(value, port.dtype)
    if not isinstance(value, (np.ndarray, np.generic)):
        raise MessageError(f"{where}: expected {port}, got a {type(value).__name__}; send a numpy array")
    tensor = np.asarray(value)
    if tensor.dtype != port.dtype:
        package = "np" if isinstance(port.element, type) else "ml_dtypes"
        raise MessageError(
            f"{where}: expected {port}, got dtype {tensor.dtype}; convert it with .astype({package}.{port.dtype})"
        )
    if port.shape is not None and tensor.ndim != len(port.shape):
        raise MessageError(f"{where}: expected {port}, got {tensor.ndim} axes: {list(tensor.shape)}")
    if not port.fits(tensor.shape):
        raise MessageError(f"{where}: expected {port}, got shape {list(tensor.shape)}")
    # ONNX Runtime reads row after row; a transposed or strided view is copied here, anything else stays where it lies.
    return np.require(tensor, requirements=("C", "ALIGNED"))
