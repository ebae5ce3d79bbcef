"""What is remembered of answers to requests with keys: for how long, how many, how much."""

from __future__ import annotations

import pytest

import slabwire
from slabwire.runtime.gateway import answer_cache as remembered
from slabwire.runtime.gateway.answer_cache import Remembered


def test_an_answer_is_found_until_it_is_too_old() -> None:
    answers = Remembered()
    assert answers.find("a", b"1", 0) is None
    kept = answers.keep("a", b"1", [memoryview(b"head"), b"tail"], 0)
    assert kept == [b"head", b"tail"]
    assert answers.find("a", b"1", remembered.KEPT_FOR_NS - 1) == kept
    with pytest.raises(slabwire.MessageError, match="another request"):
        answers.find("a", b"2", 1)
    assert answers.find("a", b"1", remembered.KEPT_FOR_NS) is None
    assert (len(answers), answers.nbytes) == (0, 0)


def test_the_oldest_go_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remembered, "MOST_ANSWERS", 3)
    monkeypatch.setattr(remembered, "MOST_NBYTES", 10)
    monkeypatch.setattr(remembered, "LARGEST_NBYTES", 8)
    answers = Remembered()
    for name in "abcd":
        answers.keep(name, b"", [b"x"], 0)
    assert [name for name in "abcd" if answers.find(name, b"", 0)] == ["b", "c", "d"]
    answers.keep("large", b"", [b"12345678"], 0)
    assert [name for name in ("b", "c", "d", "large") if answers.find(name, b"", 0)] == ["c", "d", "large"]
    assert answers.keep("too large", b"", [b"123456789"], 0) == [b"123456789"]
    assert answers.find("too large", b"", 0) is None
    assert answers.nbytes == 10
