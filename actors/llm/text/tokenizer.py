"""Text to tokens and back, for a vocabulary that lies in a GGUF file: byte-level BPE on the package `tokenizers`."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ..model_file.gguf import ModelFileError

# Read by tokenizers at every call. Its thread pool would leave the cores that the plan gave to this process.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

# How text is cut into words before merging, by the name that llama.cpp gave it: "smollm" sets every digit apart, then
# cuts as GPT-2 does. Tokens of a model with another cut would look right and be wrong, so others are refused.
KNOWN_CUTS = frozenset({"smollm"})
# Types of tokens, as llama.cpp counts them (llama_token_type).
_NORMAL, _CONTROL = 1, 3
_KEY = "tokenizer.ggml."


def _letters_of_bytes() -> dict[str, int]:
    """The visible letter that byte-level BPE writes for each byte: GPT-2's `bytes_to_unicode`."""
    visible = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    hidden = [byte for byte in range(256) if byte not in visible]
    return {chr(byte): byte for byte in visible} | {chr(256 + index): byte for index, byte in enumerate(hidden)}


_BYTE_OF = _letters_of_bytes()


class Tokenizer:
    """The vocabulary of a model: `Tokenizer(Gguf(path).metadata)`. Any thread may call it.

    A control token, such as the one that ends a turn, comes out of `encode` only where `special` allows it: the merges
    themselves cannot make one, so no text, whatever it says, is ever more than text.
    A byte for which the vocabulary has no token is left out, as llama.cpp does (SmolLM2 lacks 21 bytes: six of ASCII's
    control characters, and bytes that hardly any character is written with).
    Raises `ModelFileError` for a kind of tokenizer that is not known here, and for vocabularies that do not hold
    together.
    """

    def __init__(self, metadata: Mapping[str, Any]) -> None:
        tokens = _strings(metadata, "tokens")
        _check_kind(metadata)
        self.vocabulary_size = len(tokens)
        self.eos = _eos(metadata, self.vocabulary_size)
        control = _control(metadata, self.vocabulary_size)
        # How they are written, such as "<|im_end|>".
        self.control_texts = {tokens[token]: token for token in control}
        self._control_ids = frozenset(control)
        self._controls = _any_of(self.control_texts)
        ordinary = {text: token for token, text in enumerate(tokens) if token not in self._control_ids}
        if len(ordinary) + len(self.control_texts) != len(tokens):
            raise ModelFileError("the vocabulary has a token twice; give another GGUF file")
        self._bpe = _bpe(ordinary, _strings(metadata, "merges"), len(tokens))

    def encode(self, text: str, *, special: bool) -> list[int]:
        """The tokens of a text. With `special`, what is written like a control token becomes that token.

        Never set `special` for text that came from a user. Raises `UnicodeEncodeError` for a lone surrogate.
        """
        if special:
            return [token for piece in self.split(text) for token in self._tokens(piece)]
        return self._tokens(text)

    def split(self, text: str) -> Iterator[int | str]:
        """A text's control tokens, and the text between them, in order."""
        start = 0
        for match in self._controls.finditer(text):
            if match.start() > start:
                yield text[start : match.start()]
            yield self.control_texts[match[0]]
            start = match.end()
        if start < len(text):
            yield text[start:]

    def token_bytes(self, token: int) -> bytes:
        """The bytes that a token stands for, perhaps a part of a character; none for a control token."""
        if token in self._control_ids:
            return b""
        letters = self._bpe.id_to_token(token) if 0 <= token < self.vocabulary_size else None
        if letters is None:
            raise IndexError(f"token {token} is not in the vocabulary of {self.vocabulary_size}")
        return bytes(_BYTE_OF[letter] for letter in letters)

    def is_control(self, token: int) -> bool:
        return token in self._control_ids

    def _tokens(self, piece: int | str) -> list[int]:
        if isinstance(piece, int):
            return [piece]
        piece.encode()  # the error for a lone surrogate; tokenizers would say that the text is no string
        # The batch call is faster than encode(), keeps no offsets, and lets other threads run meanwhile.
        (found,) = self._bpe.encode_batch_fast([piece], add_special_tokens=False)
        size = self.vocabulary_size
        return [token for token in found.ids if token < size]


def _bpe(ordinary: dict[str, int], merges: Sequence[str], size: int) -> Any:
    """The merging machine.

    Bytes that the vocabulary lacks take numbers from `size` on, so that nothing merges over them: tokenizers alone
    would drop them first and merge what stood on their two sides.
    """
    try:
        import tokenizers
    except ImportError as error:
        raise ModelFileError(f"tokenizers cannot be imported ({error}); pip install 'slabwire[llm]'") from error
    missing = [letter for letter in _BYTE_OF if letter not in ordinary]
    vocabulary = ordinary | {letter: size + index for index, letter in enumerate(missing)}
    try:
        # Only the first space parts the two halves.
        pairs = [(left, right) for left, right in (merge.split(" ", 1) for merge in merges)]
        bpe = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=vocabulary, merges=pairs))
    except Exception as error:
        raise ModelFileError(f"the tokenizer's merges do not fit its tokens ({error}); give another file") from error
    if not set().union(*ordinary) <= _BYTE_OF.keys():
        raise ModelFileError("the vocabulary has tokens that are not written in byte-level BPE; give another GGUF file")
    cuts = tokenizers.pre_tokenizers
    bpe.pre_tokenizer = cuts.Sequence(
        [cuts.Digits(individual_digits=True), cuts.ByteLevel(add_prefix_space=False, use_regex=True)]
    )
    return bpe


def _any_of(texts: Iterable[str]) -> re.Pattern[str]:
    """Finds any of these texts: the leftmost, and of several in one place the longest."""
    longest_first = sorted(texts, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first)) if longest_first else r"(?!)")


def _check_kind(metadata: Mapping[str, Any]) -> None:
    model, cut = metadata.get(f"{_KEY}model"), metadata.get(f"{_KEY}pre")
    if model != "gpt2":
        raise ModelFileError(f"{_KEY}model is {model!r}; only 'gpt2' (byte-level BPE) is known here")
    if cut not in KNOWN_CUTS:
        raise ModelFileError(f"{_KEY}pre is {cut!r}; known here: {', '.join(map(repr, sorted(KNOWN_CUTS)))}")
    for name in ("add_bos_token", "add_eos_token", "add_space_prefix"):
        if metadata.get(_KEY + name, False):
            raise ModelFileError(f"{_KEY}{name} is set; a prompt here is what the chat template writes, no more")


def _strings(metadata: Mapping[str, Any], name: str) -> list[str]:
    value = metadata.get(_KEY + name)
    if not isinstance(value, list) or not value or not all(type(each) is str and each for each in value):
        raise ModelFileError(f"{_KEY}{name} is missing, or no list of strings; give a GGUF file with its tokenizer")
    return value


def _eos(metadata: Mapping[str, Any], size: int) -> int:
    eos = metadata.get(f"{_KEY}eos_token_id")
    if not isinstance(eos, int) or not 0 <= eos < size:
        raise ModelFileError(f"{_KEY}eos_token_id is {eos!r}; it must be one of the {size} tokens")
    return eos


def _control(metadata: Mapping[str, Any], size: int) -> list[int]:
    types = [int(each) for each in metadata.get(f"{_KEY}token_type", ())]
    if len(types) != size:
        raise ModelFileError(f"{_KEY}token_type has {len(types)} entries for {size} tokens; give another GGUF file")
    unknown = sorted(set(types) - {_NORMAL, _CONTROL})
    if unknown:
        raise ModelFileError(f"the vocabulary has tokens of type {unknown[0]}; known here: 1 (normal), 3 (control)")
    return [token for token, kind in enumerate(types) if kind == _CONTROL]
