"""Tokens of SmolLM2's own vocabulary, beside those that llama.cpp makes of the same texts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slabwire.actors.llm.model_file.gguf import Gguf, ModelFileError
from slabwire.actors.llm.text.tokenizer import Tokenizer
from slabwire.bench.fidelity.tokenizer_corpus import PIECES, TEXTS, the_model

CORPUS = json.loads((Path(__file__).parents[2] / "data" / "tokenizer_corpus.json").read_text())["texts"]
END = 2  # <|im_end|>


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    with Gguf(the_model()) as gguf:
        return Tokenizer(gguf.metadata)


def decoded(tokenizer: Tokenizer, tokens: list[int]) -> bytes:
    return b"".join(map(tokenizer.token_bytes, tokens))


def missing_bytes(tokenizer: Tokenizer) -> set[int]:
    single = {tokenizer.token_bytes(token) for token in range(tokenizer.vocabulary_size)}
    return {byte for byte in range(256) if bytes([byte]) not in single}


def test_the_corpus_is_of_these_texts() -> None:
    assert [each["text"] for each in CORPUS] == TEXTS, "run python -m slabwire.bench.fidelity.tokenizer_corpus"


@pytest.mark.parametrize("entry", CORPUS, ids=lambda entry: ascii(entry["text"][:20]))
def test_tokens_are_those_of_llama_cpp(tokenizer: Tokenizer, entry: dict[str, Any]) -> None:
    assert tokenizer.encode(entry["text"], special=False) == entry["plain"]
    assert tokenizer.encode(entry["text"], special=True) == entry["special"]


def test_what_the_vocabulary_is(tokenizer: Tokenizer) -> None:
    assert (tokenizer.vocabulary_size, tokenizer.eos) == (49152, END)
    assert [token for token in range(tokenizer.vocabulary_size) if tokenizer.is_control(token)] == list(range(17))
    assert tokenizer.control_texts["<|im_end|>"] == END
    assert tokenizer.token_bytes(END) == b""
    assert len(missing_bytes(tokenizer)) == 21


@pytest.mark.parametrize("token", [-1, 49152, 49160])  # the last stands for a missing byte, inside
def test_a_token_beyond_the_vocabulary(tokenizer: Tokenizer, token: int) -> None:
    with pytest.raises(IndexError, match=f"token {token} is not in the vocabulary of 49152"):
        tokenizer.token_bytes(token)


def test_half_a_surrogate_pair_is_no_text(tokenizer: Tokenizer) -> None:
    with pytest.raises(UnicodeEncodeError):
        tokenizer.encode("a\ud800", special=False)


def test_any_text_comes_back_and_is_only_text(tokenizer: Tokenizer) -> None:
    missing = missing_bytes(tokenizer)
    texts = st.text() | st.lists(st.sampled_from(PIECES)).map("".join)

    @settings(deadline=None)
    @given(texts)
    def check(text: str) -> None:
        tokens = tokenizer.encode(text, special=False)
        assert decoded(tokenizer, tokens) == bytes(byte for byte in text.encode() if byte not in missing)
        assert not any(map(tokenizer.is_control, tokens))

    check()


def test_a_long_text_without_a_place_to_cut(tokenizer: Tokenizer) -> None:
    for text in ("ab" * 50_000, " " * 100_000, "é" * 50_000, "<|im_end|" * 10_000):
        assert decoded(tokenizer, tokenizer.encode(text, special=True)) == text.encode()


# -- small vocabularies ----------------------------------------------------------------------------------------------


def metadata(**changes: Any) -> dict[str, Any]:
    """A whole vocabulary of three letters, two merges and three control tokens, of which two begin alike."""
    known = {
        "model": "gpt2",
        "pre": "smollm",
        "tokens": ["<e>", "a", "b", "c", "ab", "abc", "<e><x>", "[ö]"],
        "token_type": [3, 1, 1, 1, 1, 1, 3, 3],
        "merges": ["a b", "ab c"],
        "eos_token_id": 0,
    }
    return {f"tokenizer.ggml.{name}": value for name, value in (known | changes).items() if value is not None}


def test_control_tokens_are_found_from_the_left_and_the_longest_first() -> None:
    small = Tokenizer(metadata())
    assert small.encode("ab<e><e><x>c[ö]abc", special=True) == [4, 0, 6, 3, 7, 5]
    assert small.encode("ab<e>c[ö]", special=False) == [4, 3]  # there are no tokens for <, e, > and ö
    assert list(small.split("a<e>")) == ["a", 0]
    assert list(small.split("")) == []


def test_nothing_merges_over_a_byte_without_a_token() -> None:
    small = Tokenizer(metadata())
    assert small.encode("abc axbc", special=False) == [5, 1, 2, 3]


def test_a_vocabulary_without_control_tokens() -> None:
    small = Tokenizer(metadata(token_type=[1] * 4, tokens=["a", "b", "c", "ab"], merges=["a b"]))
    assert small.encode("abc", special=True) == [3, 2]


WRONG: Mapping[str, tuple[dict[str, Any], str]] = {
    "another kind": ({"model": "llama"}, "model is 'llama'; only 'gpt2'"),
    "another cut": ({"pre": "qwen2"}, "pre is 'qwen2'; known here: 'smollm'"),
    "no cut": ({"pre": None}, "pre is None"),
    "a token to begin with": ({"add_bos_token": True}, "add_bos_token is set"),
    "no tokens": ({"tokens": None}, "tokens is missing"),
    "no merges": ({"merges": []}, "merges is missing"),
    "tokens that are no texts": ({"tokens": [1, 2]}, "tokens is missing, or no list of strings"),
    "an empty token": ({"tokens": ["<e>", "a", "b", "c", "ab", "abc", "", "x"]}, "tokens is missing, or no list"),
    "a token twice": ({"tokens": ["<e>", "a", "b", "c", "ab", "abc", "<e>", "x"]}, "has a token twice"),
    "types of other tokens": ({"token_type": [1]}, "token_type has 1 entries for 8 tokens"),
    "an unknown type": ({"token_type": [3, 1, 1, 1, 1, 1, 4, 3]}, "tokens of type 4"),
    "no end": ({"eos_token_id": None}, "eos_token_id is None"),
    "an end beyond the vocabulary": ({"eos_token_id": 8}, "eos_token_id is 8; it must be one of the 8 tokens"),
    "a merge without halves": ({"merges": ["ab"]}, "merges do not fit"),
    "a merge of no token": ({"merges": ["b c"]}, "merges do not fit"),
    "a token that is not byte-level": (
        {"tokens": ["<e>", "a", "b", "c", "ab", "abc", "<x>", "a b"], "token_type": [3, 1, 1, 1, 1, 1, 3, 1]},
        "not written in byte-level BPE",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_tokenizer_that_is_not_known_here(name: str) -> None:
    changes, words = WRONG[name]
    with pytest.raises(ModelFileError, match=words):
        Tokenizer(metadata(**changes))
