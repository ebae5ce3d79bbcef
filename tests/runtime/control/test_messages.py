"""Every message between processes of ours survives its line, and what is no message is refused by name."""

from __future__ import annotations

from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slabwire.runtime.control import channel, gateway, owner, verbs, worker_line
from slabwire.runtime.control.schema import Schema
from slabwire.runtime.errors import ProtocolError
from slabwire.runtime.host.sealed_document import pack_document, unpack_document

SCHEMAS: list[tuple[Schema[Any], Any]] = [
    (channel.ASKS, channel.Ask),
    (channel.OFFERS, channel.Offer),
    (channel.NEWS, channel.News),
    (worker_line.ORDERS, worker_line.Order),
    (worker_line.REPORTS, worker_line.Report),
    (verbs.VERBS, verbs.Verb),
    (owner.EVENTS, owner.Event),
    (owner.JOBS, owner.RunGraph),
    (gateway.FIRST_WORDS, gateway.FirstWord),
]
TYPES = [(schema, each) for schema, union in SCHEMAS for each in (get_args(union) or (union,))]
NAMES = [each.__name__ for _, each in TYPES]

_PLAIN: dict[Any, st.SearchStrategy[Any]] = {
    int: st.integers(-(2**63), 2**63 - 1),
    float: st.floats(allow_nan=False) | st.integers(0, 9),
    str: st.text(max_size=8),
    bool: st.booleans(),
    type(None): st.none(),
}


def values_of(hint: Any) -> st.SearchStrategy[Any]:
    if isinstance(hint, UnionType):
        return st.one_of(*map(values_of, hint.__args__))
    if get_origin(hint) is list:
        return st.lists(values_of(get_args(hint)[0]), max_size=3)
    if get_origin(hint) is tuple:
        return st.lists(st.integers(0, 9), min_size=2, max_size=2)
    if get_origin(hint) is dict:
        return st.dictionaries(st.text(max_size=4), st.integers(0, 9), max_size=2)
    return _PLAIN[hint]


@pytest.mark.parametrize(("schema", "kind"), TYPES, ids=NAMES)
@given(data=st.data())
def test_a_message_survives_its_line(schema: Schema[Any], kind: Any, data: st.DataObject) -> None:
    fields = {name: data.draw(values_of(hint)) for name, hint in get_type_hints(kind).items()}
    message = kind(**fields)
    packed = pack_document(schema.document(message, envelope=3))
    read = schema.read(unpack_document(packed))
    assert type(read) is kind
    assert read == message


@pytest.mark.parametrize(("schema", "kind"), TYPES, ids=NAMES)
def test_a_field_of_another_type_is_refused(schema: Schema[Any], kind: Any) -> None:
    for field in get_type_hints(kind):
        given = dict.fromkeys(kind._fields)
        document = {**schema.document(kind(**given)), field: object()}
        with pytest.raises(ProtocolError, match="malformed"):
            schema.read(document)


@pytest.mark.parametrize(("schema", "kind"), TYPES, ids=NAMES)
def test_a_missing_field_is_refused_unless_it_has_a_default(schema: Schema[Any], kind: Any) -> None:
    for field in set(kind._fields) - set(kind._field_defaults):
        document = {name: value for name, value in schema.document(kind(*kind._fields)).items() if name != field}
        with pytest.raises(ProtocolError, match="malformed"):
            schema.read(document)


@pytest.mark.parametrize("name", ["nobody", "", 7, None, ["stop"]])
def test_what_no_line_knows_is_refused_by_its_name(name: object) -> None:
    with pytest.raises(ProtocolError, match="nobody here knows the verb"):
        verbs.VERBS.read({"verb": name})


def test_every_type_of_a_union_has_a_name() -> None:
    assert all(schema.name_of(kind(*kind._fields)) for schema, kind in TYPES)


def test_the_design_page_has_a_row_for_every_message_and_names_its_fields() -> None:
    page = (Path(__file__).parents[3] / "docs" / "design.md").read_text()
    rows = {line.split("|")[1].strip(): line for line in page.splitlines() if line.startswith("| `")}
    for schema, kind in TYPES:
        row = rows[f"`{kind.__name__}`, `{schema.name_of(kind(*kind._fields))}`"]
        assert [each for each in kind._fields if f"`{each}`" not in row] == []
