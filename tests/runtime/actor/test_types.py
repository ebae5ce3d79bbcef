"""Annotations become types; types meet or do not; values fit or do not."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NewType

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jaxtyping import Float, Float32, Int, Shaped, UInt8

from slabwire.runtime.actor.annotations import hints_of, item_type, mismatch, type_of, why_not
from slabwire.runtime.actor.axes import shape_check
from slabwire.runtime.spec import TypeSpec


@dataclass
class Box:
    left: int


@pytest.mark.parametrize(
    ("annotation", "kind", "text"),
    [
        (None, "none", "None"),
        (bool, "bool", "bool"),
        (int, "int", "int"),
        (float, "float", "float"),
        (str, "str", "str"),
        (bytes, "bytes", "bytes"),
        (list, "list", "list"),
        (list[int], "list", "list[int]"),
        (tuple[int, ...], "list", "tuple[int, ...]"),
        (Sequence[str], "list", "Sequence[str]"),
        (dict[str, int], "dict", "dict[str, int]"),
        (Mapping[str, Any], "dict", "Mapping[str, Any]"),
        (Box, "dict", "Box"),
        (int | None, "int", "int | None"),
        (int | float, "float", "int | float"),
        (int | str, "any", "int | str"),
        (Literal["a", "b"], "str", "Literal['a', 'b']"),
        (Annotated[int, "pixels"], "int", "int"),
        (NewType("Id", int), "int", "int"),
        (Any, "any", "Any"),
        (object(), "any", "Any"),
        (set[int], "any", "Any"),
        (np.ndarray, "tensor", "ndarray"),
        (UInt8[np.ndarray, "h w 3"], "tensor", "UInt8[h w 3]"),
        (list[UInt8[np.ndarray, "h w"]], "list", "list[UInt8[h w]]"),
    ],
)
def test_kind_and_text(annotation: Any, kind: str, text: str) -> None:
    spec = type_of(annotation)
    assert (spec.kind, spec.text) == (kind, text)


def test_tensor_parts() -> None:
    spec = type_of(UInt8[np.ndarray, "h w 3"] | None)
    assert spec == TypeSpec("tensor", "UInt8[h w 3] | None", ("uint8",), ("h", "w", "3"), optional=True)
    assert type_of(Shaped[np.ndarray, "..."]).dtypes == ()
    assert type_of(npt.NDArray[np.float32]).dtypes == ("float32",)
    assert {"float16", "float32", "float64"} <= set(type_of(npt.NDArray[np.floating[Any]]).dtypes)
    assert type_of(np.ndarray).dims is None


def test_union_of_tensors_keeps_what_they_share() -> None:
    spec = type_of(UInt8[np.ndarray, "h w"] | Float32[np.ndarray, "h w"])
    assert (spec.kind, spec.dtypes, spec.dims) == ("tensor", ("float32", "uint8"), ("h", "w"))


@pytest.mark.parametrize("holder", [Iterator, AsyncIterator])
def test_item_type(holder: Any) -> None:
    assert item_type(holder[int]).kind == "int"
    assert item_type(Generator[str, None, None]).kind == "str"
    assert item_type(int).kind == "any"


def test_annotation_that_cannot_be_resolved_is_any() -> None:
    def handler(known: int, unknown: Nowhere) -> str:  # type: ignore[name-defined]
        raise NotImplementedError

    hints = hints_of(handler)
    assert type_of(hints["known"]).kind == "int"
    assert type_of(hints["unknown"]).kind == "any"
    assert type_of(hints["return"]).kind == "str"


def test_jaxtyping_is_not_imported() -> None:
    script = "import sys, slabwire.runtime.graph.definition; sys.exit('jaxtyping' in sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True)


TENSOR = "h w 3"


@pytest.mark.parametrize(
    ("source", "target", "reason"),
    [
        (int, float, None),
        (bool, int, None),
        (float, int, "float is not int"),
        (str, int, "str is not int"),
        (Any, int, None),
        (int, Any, None),
        (None, int | None, None),
        (None, int, "None is not int"),
        (int | None, str | None, "int | None is not str | None"),
        (Box, dict, None),
        (tuple[int, int], list[int], None),
        (UInt8[np.ndarray, TENSOR], UInt8[np.ndarray, "a b c"], None),
        (UInt8[np.ndarray, TENSOR], np.ndarray, None),
        (UInt8[np.ndarray, TENSOR], str, "UInt8[h w 3] is not str"),
        (UInt8[np.ndarray, TENSOR], Float32[np.ndarray, TENSOR], "dtype uint8 is not float32"),
        (Float32[np.ndarray, "h"], Float[np.ndarray, "h"], None),
        (Float32[np.ndarray, "h w"], Float32[np.ndarray, "h"], "rank 2 is not rank 1"),
        (Float32[np.ndarray, "h"], Float32[np.ndarray, "*b h w"], "rank 1 is not rank 2 or more"),
        (Float32[np.ndarray, "*b 3"], Float32[np.ndarray, "h w 4"], "an axis of 3 is not 4"),
        (Float32[np.ndarray, "2 ..."], Float32[np.ndarray, "... 3"], None),
        (Float32[np.ndarray, "2 ..."], Float32[np.ndarray, "4 ..."], "an axis of 2 is not 4"),
        (Float32[np.ndarray, "#3"], Float32[np.ndarray, "1"], None),
    ],
)
def test_why_not(source: Any, target: Any, reason: str | None) -> None:
    assert why_not(type_of(source), type_of(target)) == reason


_axis = st.sampled_from(["1", "2", "3", "h", "w", "_", "#2", "#h", "h=2", "h+1"])


@st.composite
def _patterns(draw: st.DrawFn) -> tuple[str, ...]:
    before, after = draw(st.lists(_axis, max_size=2)), draw(st.lists(_axis, max_size=2))
    return (*before, *draw(st.sampled_from([(), ("...",), ("*batch",)])), *after)


def _tensor(dims: tuple[str, ...]) -> TypeSpec:
    return TypeSpec("tensor", " ".join(dims), (), dims)


@given(_patterns(), _patterns())
def test_why_not_of_ranks_is_symmetric(one: tuple[str, ...], other: tuple[str, ...]) -> None:
    forth, back = why_not(_tensor(one), _tensor(other)), why_not(_tensor(other), _tensor(one))
    assert (forth is None) == (back is None)


@given(_patterns(), _patterns(), st.lists(st.integers(1, 3), max_size=5))
def test_types_that_one_shape_fits_can_meet(one: tuple[str, ...], other: tuple[str, ...], sizes: list[int]) -> None:
    shape = tuple(sizes)
    if shape_check(one)(shape, {}) and shape_check(other)(shape, {}):
        assert why_not(_tensor(one), _tensor(other)) is None


@given(_patterns(), st.lists(st.integers(1, 3), max_size=5))
def test_shapes_fit_as_jaxtyping_says(dims: tuple[str, ...], sizes: list[int]) -> None:
    if "h+1" in dims:
        return  # an expression is not evaluated
    array = np.zeros(sizes, np.float32)
    annotation: Any = Float32[np.ndarray, " ".join(dims)]
    expected = isinstance(array, annotation)
    assert shape_check(dims)(array.shape, {}) == expected


def test_mismatch_says_what_was_expected_and_what_came() -> None:
    spec = type_of(UInt8[np.ndarray, "h w 3"])
    assert mismatch(np.zeros((4, 5, 3), np.uint8), spec, {}) is None
    wrong = mismatch(np.zeros((4, 4), np.float32), spec, {})
    assert wrong == "expected UInt8[h w 3], got float32 of shape (4, 4)"
    assert mismatch("page", spec, {}) == "expected UInt8[h w 3], got str"
    assert mismatch(None, spec, {}) == "expected UInt8[h w 3], got None"
    assert mismatch(None, type_of(UInt8[np.ndarray, "h"] | None), {}) is None


def test_named_axes_agree_within_a_message() -> None:
    axes: dict[str, int] = {}
    assert mismatch(np.zeros((4, 5, 3), np.uint8), type_of(UInt8[np.ndarray, "h w 3"]), axes) is None
    assert axes == {"h": 4, "w": 5}
    wrong = mismatch(np.zeros((4, 6), np.uint8), type_of(UInt8[np.ndarray, "h w"]), axes)
    assert wrong == "expected UInt8[h w] with h=4, w=5, got uint8 of shape (4, 6)"


@pytest.mark.parametrize(
    ("annotation", "good", "bad"),
    [
        (bool, True, 1),
        (int, 1, 1.0),
        (float, 1, "1"),
        (str, "a", b"a"),
        (bytes, b"a", "a"),
        (list, (1,), {}),
        (dict, Box(1), []),
        (None, None, 0),
        (Int[np.ndarray, "n"], np.zeros(2, np.int16), np.zeros(2)),
        (Float32[np.ndarray, "n"], np.zeros(2, ">f4"), np.float32(1)),
    ],
)
def test_mismatch_by_kind(annotation: Any, good: Any, bad: Any) -> None:
    assert mismatch(good, type_of(annotation), {}) is None
    assert mismatch(bad, type_of(annotation), {}) is not None


@pytest.mark.parametrize(
    ("kind", "array"),
    [
        (np.datetime64, np.zeros(2, "M8[s]")),
        (np.timedelta64, np.zeros(2, "m8[2D]")),
        (np.str_, np.array(["abc"])),
        (np.bytes_, np.array([b"abc"])),
        (np.void, np.zeros(2, "V4")),
        (np.floating, np.zeros(2, ">f8")),
    ],
)
def test_an_annotation_with_a_kind_takes_every_length_and_unit_of_it(kind: Any, array: Any) -> None:
    assert mismatch(array, type_of(np.ndarray[Any, np.dtype[kind]]), {}) is None
    assert mismatch(np.zeros(2, complex), type_of(np.ndarray[Any, np.dtype[kind]]), {}) is not None


def test_a_bool_of_numpy_stands_for_a_bool() -> None:
    assert mismatch(np.bool_(True), type_of(bool), {}) is None
