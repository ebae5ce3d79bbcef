"""How many values a body holds, told without parsing it."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slabwire.actors.ingress.requests.body import Values
from slabwire.actors.ingress.requests.refusals import Refusal

_texts = st.text() | st.text(alphabet='"\\,[]{}:u')
_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | _texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_texts, inner, max_size=4),
    max_leaves=20,
)


def counted(parts: list[bytes], most: int = 1 << 40) -> int:
    values = Values(most)
    for each in parts:
        values.add(each)
    return values.count


def count(value: Any) -> int:
    """An empty array or object counts twice."""
    if not isinstance(value, list | dict):
        return 1
    inner = value.values() if isinstance(value, dict) else value
    return 1 + (sum(map(count, inner)) or 1)


@given(_json, st.booleans(), st.lists(st.integers(0, 200)))
def test_the_count_is_that_of_the_parsed_text_however_it_is_cut(value: Any, escapes: bool, cuts: list[int]) -> None:
    text = json.dumps(value, ensure_ascii=escapes).encode("utf-8", "backslashreplace")
    places = [0, *sorted(each for each in cuts if each < len(text)), len(text)]
    parts = [text[start:end] for start, end in pairwise(places)]
    assert counted(parts) == count(value)


@pytest.mark.parametrize(
    "unit", [b"[],", b"{},", b"0,", b'"",', b'"a":0,', b"[", b"{", b'"\\"",', b'[{"a":[', b'"\\\\",', b'{"":{"":0}},']
)
def test_too_many_are_refused_however_they_come(unit: bytes) -> None:
    for parts in ([unit] * 5000, [unit * 5000]):
        with pytest.raises(Refusal, match="more than 1000 values"):
            counted(parts, most=1000)


@pytest.mark.parametrize("text", [b"a", b",", b"[{", b"\\\\", b'\\"', b"\\n", "é,".encode(), b" "])
def test_text_is_free_whatever_it_says(text: bytes) -> None:
    assert counted([b'{"a": "', *[text] * 5000, b'"}']) == 2
    assert counted([b'{"a": "' + text * 5000 + b'"}']) == 2
