"""Text out of tokens, piece by piece: characters across tokens, and stop strings across pieces."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slabwire.actors.llm.text.stop_strings import StopStrings, text_decoder


def cut(whole: bytes, places: list[int]) -> list[bytes]:
    ends = sorted({0, len(whole), *(place % (len(whole) + 1) for place in places)})
    return [whole[start:end] for start, end in pairwise(ends)]


def test_a_character_comes_when_its_last_byte_is_there() -> None:
    stream = text_decoder()
    flag = "é🇩🇪".encode()
    assert [stream.decode(flag[index : index + 1]) for index in range(len(flag))] == [
        *("", "é"),
        *("", "", "", "🇩"),
        *("", "", "", "🇪"),
    ]
    assert stream.decode(b"", final=True) == ""


@pytest.mark.parametrize(
    "whole", [b"\xf0\x9f\x98", b"a\xff", b"\xc3(", b"\xed\xa0\x80", b"\xe2\x82", b"\xf4\x90\x80\x80"]
)
def test_what_is_no_character(whole: bytes) -> None:
    stream = text_decoder()
    text = "".join(stream.decode(bytes([byte])) for byte in whole) + stream.decode(b"", final=True)
    assert text == whole.decode(errors="replace")
    assert "\ufffd" in text


def test_what_cannot_become_a_character_is_not_held_back() -> None:
    stream = text_decoder()
    assert stream.decode(b"\xf0\x9f") == ""
    assert stream.decode(b"ab") == "\ufffdab"


@given(st.binary() | st.text().map(str.encode), st.lists(st.integers(0, 1000)))
def test_any_bytes_in_any_pieces(whole: bytes, places: list[int]) -> None:
    stream = text_decoder()
    assert "".join(map(stream.decode, cut(whole, places))) + stream.decode(b"", final=True) == whole.decode(
        errors="replace"
    )


# -- stop strings ----------------------------------------------------------------------------------------------------


def oracle(text: str, stops: list[str]) -> tuple[str, bool]:
    """Character by character: the first end of a stop string, and of those the longest, cuts the text."""
    for end in range(len(text) + 1):
        found = [stop for stop in stops if stop and text[:end].endswith(stop)]
        if found:
            return text[: end - max(map(len, found))], True
    return text, False


def run(pieces: list[str], stops: list[str]) -> tuple[str, bool]:
    strings = StopStrings(stops)
    shown = ""
    for piece in pieces:
        text, stopped = strings.push(piece)
        shown += text
        if stopped:
            return shown + strings.finish(), True
    return shown + strings.finish(), False


@pytest.mark.parametrize(
    ("pieces", "stops", "expected"),
    [
        (["hello"], [], ("hello", False)),
        (["hello"], [""], ("hello", False)),
        (["hello STOP world"], ["STOP"], ("hello ", True)),
        (["hello S", "T", "OP world"], ["STOP"], ("hello ", True)),
        (["hello S", "T", "IR"], ["STOP"], ("hello STIR", False)),
        (["hello ST"], ["STOP"], ("hello ST", False)),
        (["aa", "ab"], ["aab"], ("a", True)),
        (["abab", "ac"], ["ababac"], ("", True)),
        (["ababab", "ac"], ["ababac"], ("ab", True)),
        (["one\n", "\ntwo"], ["\n\n", "two"], ("one", True)),
        (["x12345"], ["345", "12345"], ("x", True)),
        (["x12345"], ["34", "12345"], ("x12", True)),
        (["日本", "語。"], ["語"], ("日本", True)),
    ],
)
def test_where_a_text_ends(pieces: list[str], stops: list[str], expected: tuple[str, bool]) -> None:
    assert run(pieces, stops) == expected
    assert run(list("".join(pieces)), stops) == expected


def test_no_more_is_held_back_than_may_become_a_stop_string() -> None:
    strings = StopStrings(["STOP", "OPEN"])
    assert strings.push("a S") == ("a ", False)
    assert strings.push("TO") == ("", False)
    assert strings.push("x") == ("STOx", False)
    assert strings.push("STOPPED"[:2]) == ("", False)
    assert strings.finish() == "ST"
    assert strings.finish() == ""


letters = st.text("ab", max_size=40)


@given(st.lists(st.text("ab", max_size=6), max_size=4), st.lists(letters, max_size=8))
def test_any_text_in_any_pieces(stops: list[str], pieces: list[str]) -> None:
    assert run(pieces, stops) == oracle("".join(pieces), stops)


@given(st.lists(st.text("ab", min_size=1, max_size=6), min_size=1, max_size=4), st.lists(letters, max_size=8))
def test_what_is_held_back_is_the_longest_beginning_of_a_stop_string(stops: list[str], pieces: list[str]) -> None:
    strings = StopStrings(stops)
    whole, shown = "", ""
    for piece in pieces:
        text, stopped = strings.push(piece)
        if stopped:
            return
        whole, shown = whole + piece, shown + text
        beginnings = [stop[:length] for stop in stops for length in range(len(stop))]
        assert len(whole) - len(shown) == max(len(each) for each in beginnings if whole.endswith(each))


def test_a_stop_string_that_is_made_to_be_slow() -> None:
    stop = "a" * 20_000 + "b"
    strings = StopStrings([stop] * 4)
    for _ in range(100):
        assert strings.push("a" * 200) == ("", False)
    assert strings.push("a" * 200) == ("a" * 200, False)
    assert strings.push("b") == ("", True)
