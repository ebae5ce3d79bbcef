"""A chat model behind OpenAI's interface: four actors, each a process of its own.

slabwire run examples/chat.py             # then: curl --cacert ... https://127.0.0.1:8443/v1/chat/completions
"""

from __future__ import annotations

import os

from slabwire import Graph
from slabwire.actors.ingress import Ingress
from slabwire.actors.llm import LanguageModel
from slabwire.actors.prompt_cache import PrefixCache, ResponseCache

graph = Graph("chat")

# The model has a core to itself. It asks "prefixes" for what it has computed of a prompt before.
llm = graph.add(LanguageModel, name="llm", prefixes="prefixes", cores=1)
graph.add(PrefixCache, name="prefixes")

# Same question, same answer: from memory. Any other it hands on to "llm", whose words go straight to who asked.
cache = graph.add(ResponseCache, name="cache", model="llm", prefixes="prefixes")

# Terminates TLS and speaks HTTP. Clients name a model; this says which actor answers.
ingress = graph.add(
    Ingress,
    name="ingress",
    models={"smollm2-135m-instruct": "cache"},
    port=int(os.environ.get("PORT", "8443")),
    certificate=os.environ.get("CERTIFICATE"),  # of yours; without it one for development is made
)

graph.expose(cache.chat, ingress.describe)

if __name__ == "__main__":
    with graph.run() as running:
        for item in running.client.stream("cache.chat", [{"role": "user", "content": "Who are you?"}], max_tokens=40):
            print(item.get("text", ""), end="", flush=True)
        print()
