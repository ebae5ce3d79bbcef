"""The messages of a request: what can be said of them without knowing the model."""

from __future__ import annotations

from typing import Any

from ...completion import MOST_CONTENT_NBYTES, MOST_MESSAGES, ROLES, prompt_too_long
from ..requests.parameters import shown, wrong_type
from ..requests.refusals import Refusal

# Types of parts that are text, which stands under the same name; a refusal is what an assistant has said.
_PARTS = ("text", "refusal")
# Fields of a message that stand for abilities which a text model behind this interface does not have.
_NOT_TEXT = ("tool_calls", "function_call", "audio")


def conversation(value: Any) -> list[dict[str, Any]]:
    """The messages as {"role", "content": str[, "name": str]}, ready for a model; parts of a text are joined by "\\n".

    Raises Refusal, which names the message and its field, and for more messages than OpenAI's interface takes;
    PromptTooLong for more text than a language model looks at.
    """
    if value is None:
        raise Refusal(
            'Missing required parameter: \'messages\', an array such as [{"role": "user", "content": "Hi"}].',
            "messages",
            "missing_required_parameter",
        )
    if type(value) is not list:
        raise wrong_type("messages", value, "an array of objects")
    if not value:
        raise Refusal("'messages' is empty; it takes at least one message.", "messages", "empty_array")
    if len(value) > MOST_MESSAGES:
        raise Refusal(
            f"Invalid 'messages': array too long. Expected an array with maximum length {MOST_MESSAGES}, but got an "
            f"array with length {len(value)} instead.",
            "messages",
            "array_above_max_length",
        )
    messages = [_message(f"messages[{index}]", each) for index, each in enumerate(value)]
    if sum(len(each["content"]) for each in messages) > MOST_CONTENT_NBYTES:
        # A language model would say so, too: after each process on the way had taken and passed on the whole of it.
        raise prompt_too_long(f"the messages hold more than {MOST_CONTENT_NBYTES} bytes of text; send less")
    return messages


def _message(path: str, given: Any) -> dict[str, Any]:
    if type(given) is not dict:
        raise wrong_type(path, given, "an object")
    for name in _NOT_TEXT:
        if given.get(name):
            raise _unsupported(f"{path}.{name}", f"'{name}' is not supported: the models here read and write text")
    role = _role(path, given.get("role"))
    content = given.get("content")
    if content is None and role == "assistant":
        content = given.get("refusal") or ""  # an answer that was nothing but a refusal, or nothing
    message = {"role": role, "content": _content(f"{path}.content", content)}
    if given.get("name") is not None:
        message["name"] = _text(f"{path}.name", given["name"])
    return message


def _role(path: str, role: Any) -> str:
    param = f"{path}.role"
    if role is None:
        raise Refusal(f"Missing required parameter: '{param}'.", param, "missing_required_parameter")
    if type(role) is not str:
        raise wrong_type(param, role, "a string")
    if role in ("tool", "function"):
        raise _unsupported(param, f"role '{role}' is not supported: the models here call no tools")
    if role not in ROLES:
        raise Refusal(f"'{param}' is {shown(role)}; it must be one of {', '.join(ROLES)}.", param, "invalid_value")
    return ROLES[role]


def _content(path: str, content: Any) -> str:
    if content is None:
        raise Refusal(f"Missing required parameter: '{path}'.", path, "missing_required_parameter")
    if type(content) is str:
        return content
    if type(content) is not list:
        raise wrong_type(path, content, "a string or an array of text parts")
    return "\n".join(_part(f"{path}[{index}]", each) for index, each in enumerate(content))


def _part(path: str, part: Any) -> str:
    if type(part) is not dict:
        raise wrong_type(path, part, "an object")
    kind = part.get("type")
    if kind not in _PARTS:
        raise _unsupported(f"{path}.type", f'parts of type {shown(kind)} are not supported; "text" is')
    return _text(f"{path}.{kind}", part.get(kind))


def _text(path: str, value: Any) -> str:
    if type(value) is not str:
        raise wrong_type(path, value, "a string")
    return value


def _unsupported(param: str, why: str) -> Refusal:
    return Refusal(f"Invalid value for '{param}': {why}.", param, "unsupported_value")
