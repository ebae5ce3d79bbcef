"""Conversations to prompts: a model's chat template, in a sandbox, and what users say kept apart from its markup."""

from __future__ import annotations

import reprlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NoReturn

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment

from ....runtime.errors import SlabwireError
from ...completion import MOST_CONTENT_NBYTES, MOST_MESSAGES, ROLES, BadMessages, prompt_too_long
from .tokenizer import Tokenizer

# Of a model's context. English has 4 bytes a token; rules of dashes and runs of spaces have up to 80, but no text that
# anybody reads has 16. More is turned away unread: tokenising it would only show, slowly, that it does not fit.
MOST_NBYTES_PER_TOKEN = 16
_SHORTER = "shorten the messages or leave out older ones"
# Characters of a whole prompt: the contents, and as much again for the markup around them.
MOST_PROMPT = 2 * MOST_CONTENT_NBYTES

# Lone surrogates: no text that can be written in UTF-8 has them, and messages are held to that.
_PRIVATE = range(0xD800, 0xE000)

# Makes no more of a value than is quoted.
_QUOTES = reprlib.Repr()
_QUOTES.maxstring = _QUOTES.maxother = 80

Conversation = list[dict[str, str]]


class TemplateError(SlabwireError):
    """A chat template that cannot be read, or that fails on a conversation which it should take."""

    code = "chat_template"


class _Refused(Exception):
    """Raised by the template itself, about the conversation."""


class _Undefined(jinja2.Undefined):
    """Templates may ask whether a name is there, but one that writes a missing value into a prompt is mistaken."""

    __str__ = jinja2.Undefined._fail_with_undefined_error


class ChatTemplate:
    """A chat template in Jinja, as model files carry it under "tokenizer.chat_template".

    It runs as in the package transformers (Hugging Face): trimmed blocks, loop controls, `raise_exception`, in Jinja's
    immutable sandbox, without files. The sandbox keeps a hostile template from Python's objects and from huge ranges;
    it does not keep one from being slow: use model files that you trust that far.
    Raises `TemplateError` for a template that is empty or no Jinja.
    """

    def __init__(self, source: str) -> None:
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, undefined=_Undefined, extensions=["jinja2.ext.loopcontrols"]
        )
        environment.globals["raise_exception"] = _refuse
        if not source.strip():
            raise TemplateError("the model file has no chat template; give the file of a chat model")
        try:
            self._template = environment.from_string(source)
        except Exception as error:  # a syntax error, or whatever a constant expression does when it is folded
            raise TemplateError(f"the model's chat template is no Jinja: {error}; give another model file") from error

    def render(self, messages: object, *, add_generation_prompt: bool = True) -> str:
        """The prompt as text, for people to read. A model is given `prompt_tokens`.

        `messages`: a list of {"role": "system", "developer", "user" or "assistant", "content": text}, where the content
        may be a list of {"type": "text", "text": text} too. With `add_generation_prompt` the answer is begun.
        Raises `BadMessages` (which message, what is wrong), `PromptTooLong` and `TemplateError`.
        """
        return self._render(conversation_of(messages), add_generation_prompt)

    def prompt_tokens(self, messages: object, tokenizer: Tokenizer, most_tokens: int | None = None) -> list[int]:
        """The prompt as tokens: markup may be control tokens, contents never are.

        With `most_tokens`, a model's context, contents of more than `MOST_NBYTES_PER_TOKEN` bytes for each of them are
        refused before they are read; of a prompt that has more tokens than that the rest is not made, and it is for the
        caller to look.

        For contents without control tokens these are the tokens of the rendered text. In others "<|im_end|>" is the
        ten letters that it consists of.

        How: the template runs a second time on contents whose every character that occurs in a control token is
        replaced by a private one. Control tokens that are found in that text were made by the markup alone. Between
        them the characters are put back, and each stretch, markup and content together, is merged as one text.
        Raises as `render` does, and `BadMessages` where the two runs differ: the template then looks for tags in these
        contents, as some do, and what it made of them cannot be told from its markup.
        """
        conversation = conversation_of(messages, most_tokens)
        veil = _veil(tokenizer.control_texts)
        unveil = {private: character for character, private in veil.items()}
        veiled = self._render([each | {"content": each["content"].translate(veil)} for each in conversation])
        prompt: list[int] = []
        for piece in tokenizer.split(veiled):
            prompt += _tokens(piece, unveil, tokenizer)
            if most_tokens is not None and len(prompt) > most_tokens:
                return prompt
        if veiled.translate(unveil) != self._render(conversation):
            _reject("the model's chat template reads meaning into their contents", "leave out what looks like its tags")
        return prompt

    def _render(self, conversation: Conversation, add_generation_prompt: bool = True) -> str:
        pieces, size = [], 0
        values = {"messages": conversation, "add_generation_prompt": add_generation_prompt, "tools": None}
        try:
            for piece in self._template.generate(values):
                size += len(piece)
                if size > MOST_PROMPT:
                    raise prompt_too_long(f"the prompt has more than {MOST_PROMPT} characters; send less text")
                pieces.append(piece)
        except _Refused as error:
            raise BadMessages(f"messages: the model's chat template refuses them: {error}") from None
        except SlabwireError:
            raise
        except Exception as error:  # anything at all: it is the template's own code that runs
            raise TemplateError(f"the model's chat template fails: {type(error).__name__}: {error}") from error
        return "".join(pieces)


def conversation_of(messages: object, most_tokens: int | None = None) -> Conversation:
    """Checked messages as templates take them: role and content, both text.

    Raises `BadMessages` for what a text model cannot take, `PromptTooLong` above `MOST_MESSAGES`, above
    `MOST_CONTENT_NBYTES` of contents, and for what no model with a context of `most_tokens` can take.
    """
    if not isinstance(messages, list) or not messages:
        _reject("they must be a list of at least one message", 'send [{"role": "user", "content": "..."}]')
    _check_count(messages, most_tokens)
    conversation, size = [], 0
    for index, message in enumerate(messages):
        content = _content(message, index)
        conversation.append({"role": _role(message, index), "content": content})
        size += _nbytes(content, index)
        if size > MOST_CONTENT_NBYTES:
            raise prompt_too_long(f"the messages hold more than {MOST_CONTENT_NBYTES} bytes of text; send less")
    most = size if most_tokens is None else most_tokens * MOST_NBYTES_PER_TOKEN
    if size > most:
        raise prompt_too_long(
            f"the messages hold {size} bytes of text, and the model's context of {most_tokens} tokens takes "
            f"{most} bytes at most, together with the answer; {_SHORTER}",
            most_tokens,
        )
    return conversation


def _check_count(messages: list[Any], most_tokens: int | None) -> None:
    """Each message, and each part of one, takes time however little it says, and a message takes a token at least."""
    most = min(MOST_MESSAGES, most_tokens or MOST_MESSAGES)
    if len(messages) > most:
        raise prompt_too_long(f"there are {len(messages)} messages, of {most} at most; {_SHORTER}", most_tokens)
    contents = [each.get("content") for each in messages if isinstance(each, dict)]
    parts = sum(len(each) for each in contents if isinstance(each, list))
    if parts > MOST_MESSAGES:
        raise prompt_too_long(f"the messages have {parts} parts, of {MOST_MESSAGES} at most; send longer ones")


def _role(message: Mapping[str, Any], index: int) -> str:
    role = message.get("role")
    if not isinstance(role, str) or role not in ROLES:
        _reject(f"message {index} has role {_short(role)}", f"take one of {', '.join(ROLES)}")
    return ROLES[role]


def _content(message: object, index: int) -> str:
    if not isinstance(message, dict):
        _reject(f"message {index} is no object", 'send {"role": ..., "content": ...}')
    if message.get("tool_calls") or message.get("function_call"):
        _reject(f"message {index} calls a tool, which this model does not know", "send its text alone")
    content = message.get("content")
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        _reject(f"message {index} has no content that is text", "send a string, or a list of text parts")
    return "".join(_parts(content, index))


def _parts(parts: Sequence[object], index: int) -> Iterator[str]:
    for part in parts:
        kind, text = (part.get("type"), part.get("text")) if isinstance(part, dict) else (None, None)
        if kind != "text" or not isinstance(text, str):
            _reject(
                f"message {index} has a part of type {_short(kind)}, and this model takes text alone",
                'send parts {"type": "text", "text": "..."}',
            )
        yield text


def _nbytes(content: str, index: int) -> int:
    try:
        return len(content.encode())
    except UnicodeEncodeError as error:
        _reject(f"message {index} has half a surrogate pair at character {error.start}", "send well-formed Unicode")


def _reject(cause: str, remedy: str) -> NoReturn:
    raise BadMessages(f"messages: {cause}; {remedy}")


def _short(value: object) -> str:
    """A client's value as it is quoted back: no longer than a name is."""
    text = _QUOTES.repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _refuse(message: object = "") -> NoReturn:
    raise _Refused(_short(message) if not isinstance(message, str) else message[:500])


def _veil(texts: Mapping[str, int]) -> dict[int, int]:
    """A private character for each that control tokens are written with."""
    characters = sorted(set().union(*texts))
    if len(characters) > len(_PRIVATE):
        raise TemplateError(f"control tokens use {len(characters)} characters; at most {len(_PRIVATE)} are possible")
    return {ord(character): private for character, private in zip(characters, _PRIVATE, strict=False)}


def _tokens(piece: int | str, unveil: Mapping[int, int], tokenizer: Tokenizer) -> Sequence[int]:
    return [piece] if isinstance(piece, int) else tokenizer.encode(piece.translate(unveil), special=False)
