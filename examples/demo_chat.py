"""What `make demo` runs: the graph of chat.py, started by the CLI, asked over TLS through OpenAI's own SDK.

    python examples/demo_chat.py

PORT=8443 chooses the port; a port that is taken is passed over. With a terminal the graph stays until Ctrl-C; without
one, all ends by itself. The status is 0 if both questions were answered.
"""

from __future__ import annotations

import os
import shlex
import socket
import ssl
import sys
import time
from dataclasses import dataclass
from typing import Any

import openai

import slabwire
from served import command, say, show

GRAPH = "chat"
MODEL = "smollm2-135m-instruct"
QUESTIONS = ("Explain in three sentences why the sky is blue.", "And why are sunsets red?")


@dataclass
class Answer:
    """What came, and when: seconds since the question."""

    text: str
    first_token_s: float
    whole_s: float
    usage: Any

    def __str__(self) -> str:
        rate = (self.usage.completion_tokens - 1) / (self.whole_s - self.first_token_s)
        cached = self.usage.prompt_tokens_details.cached_tokens
        return (
            f"time to first token {self.first_token_s * 1e3:6.0f} ms, then {rate:5.1f} tokens a second; "
            f"prompt {self.usage.prompt_tokens} tokens, of which {cached} were cached"
        )


def ask(client: openai.OpenAI, messages: list[Any]) -> Answer:
    """Prints the words as they come."""
    began = time.perf_counter()
    first, pieces, usage = 0.0, [], None
    stream = client.chat.completions.create(
        model=MODEL,
        messages=messages,
        temperature=0,
        max_tokens=120,
        stream=True,
        stream_options={"include_usage": True},
    )
    for chunk in stream:
        usage = chunk.usage or usage
        text = chunk.choices[0].delta.content if chunk.choices else None
        if text:
            first = first or time.perf_counter() - began
            pieces.append(text)
            print(text, end="", flush=True)
    print()
    return Answer("".join(pieces), first, time.perf_counter() - began, usage)


def converse(client: openai.OpenAI) -> list[Answer]:
    """Two questions; the second goes along with the first and its answer, as in every chat."""
    messages: list[Any] = []
    answers = []
    for question in QUESTIONS:
        say(f"a question over TLS: {question}")
        messages.append({"role": "user", "content": question})
        answers.append(ask(client, messages))
        messages.append({"role": "assistant", "content": answers[-1].text})
    return answers


def demonstrate() -> None:
    with slabwire.connect(GRAPH) as client:
        served = client.call("ingress.describe", timeout_s=10)
    trust = ssl.create_default_context(cafile=served["certificate"])
    with openai.OpenAI(
        base_url=f"{served['url']}/v1",
        api_key="not needed",
        http_client=openai.DefaultHttpxClient(verify=trust),
    ) as client:
        answers = converse(client)
    say("what that took")
    for number, answer in enumerate(answers, 1):
        print(f"  question {number}: {answer}")
    say("how its processes are doing")
    command("top", "--once", GRAPH)
    say("ask it yourself" + (", while it runs" if sys.stdin.isatty() else ": slabwire run examples/chat.py, then"))
    print(curl(served["url"], served["certificate"]))


def curl(url: str, certificate: str) -> str:
    body = f'{{"model": "{MODEL}", "stream": true, "messages": [{{"role": "user", "content": "Who are you?"}}]}}'
    return (
        f"curl -N --cacert {shlex.quote(certificate)} {url}/v1/chat/completions \\\n"
        f"     -H 'Content-Type: application/json' -d '{body}'"
    )


def free_port(wanted: int) -> int:
    """That port, or any other if it is taken."""
    for port in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise SystemExit("demo: no free port on 127.0.0.1")


if __name__ == "__main__":
    os.environ["PORT"] = str(free_port(int(os.environ.get("PORT", "8443"))))
    sys.exit(show(GRAPH, "chat.py", demonstrate))
