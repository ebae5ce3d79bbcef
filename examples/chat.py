"""A chat model behind OpenAI's interface: three actors, each a process of its own.

slabwire run examples/chat.py             # then: curl --cacert ... https://127.0.0.1:8443/v1/chat/completions
"""

from __future__ import annotations

import os

from slabwire import Graph
from slabwire.actors.ingress import Ingress
from slabwire.actors.llm import LanguageModel
from slabwire.actors.prompt_cache import PromptCache

graph = Graph("chat")

# The model has a core to itself. It asks "cache" for what it has computed of a prompt before.
llm = graph.add(LanguageModel, name="llm", prefixes="cache", cores=1)

# Same question, same answer: from memory. Else it asks "llm", and passes its words on as they come.
cache = graph.add(PromptCache, name="cache", model="llm")

# Terminates TLS and speaks HTTP. Clients name a model; this says which actor answers.
ingress = graph.add(
    Ingress,
    name="ingress",
    models={"smollm2-135m-instruct": "cache"},
    port=int(os.environ.get("PORT", "8443")),
)

graph.expose(cache.chat, ingress.describe)

if __name__ == "__main__":
    with graph.run() as running:
        for item in running.client.stream("cache.chat", [{"role": "user", "content": "Who are you?"}], max_tokens=40):
            print(item.get("text", ""), end="", flush=True)
        print()
