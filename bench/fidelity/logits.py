"""The logits of every position of some prompts, in the ways that a model is computed when it answers.

All give float32 [n, vocabulary] for prompts, int64 each, of n tokens together.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...actors.inference.session import Session
from ...actors.llm.engine.network import Network
from ...actors.llm.engine.slots import Slots
from ...actors.llm.model_file.architecture import Architecture

Floats = NDArray[np.float32]
Prompts = Sequence[NDArray[np.int64]]
# How many steps later the next sequence begins, where several are decoded side by side.
STAGGER = 5


def prefill_logits(model_path: Path, architecture: Architecture, prompts: Prompts) -> Floats:
    """Each prompt in one call. An answer needs the logits of the last token alone; here they are asked for all."""
    session = Session(model_path)
    return np.concatenate([session.run(_feeds(architecture, each))["logits"] for each in prompts])


def _feeds(architecture: Architecture, prompt: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
    length = len(prompt)
    past = np.zeros((1, architecture.kv_heads, length, architecture.head_dim), np.float32)
    return {
        "input_ids": prompt.reshape(1, -1),
        "seqlens_k": np.array([length - 1], np.int32),
        "total_len": np.array([length], np.int32),
        "rows": np.arange(length),
        **{f"past.{layer}.{part}": past for layer in range(architecture.layers) for part in ("key", "value")},
    }


def decode_logits(model_path: Path, architecture: Architecture, prompts: Prompts, *, together: bool) -> Floats:
    """Token by token: all prompts side by side, as when many ask, or one after the other."""
    rounds = [prompts] if together else [[each] for each in prompts]
    slots = Slots(architecture, max(map(len, rounds)), max(map(len, prompts)))
    try:
        network = Network(model_path, architecture, slots, 1)
        return np.concatenate([_decoded(network, each) for each in rounds])
    finally:
        slots.close()


def _decoded(network: Network, prompts: Prompts) -> Floats:
    """Shorter prompts begin and end first, so that those in work have neighbouring slots and different lengths."""
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    rows: list[list[Floats]] = [[] for _ in prompts]
    for step in range(len(prompts[order[-1]]) + STAGGER * (len(prompts) - 1)):
        done = [step - STAGGER * slot for slot in range(len(prompts))]
        running = [slot for slot, index in enumerate(order) if 0 <= done[slot] < len(prompts[index])]
        tokens = [int(prompts[order[slot]][done[slot]]) for slot in running]
        logits = network.decode(running[0], tokens, [done[slot] for slot in running])
        for slot, row in zip(running, logits, strict=True):
            rows[order[slot]].append(row.copy())
    return np.concatenate([np.stack(each) for each in rows])


def llama_cpp_logits(gguf_path: Path, prompts: Prompts) -> Floats:
    """By llama.cpp, through the package llama-cpp-python. Raises ImportError where that is not installed."""
    package = import_module("llama_cpp")
    context = max(map(len, prompts))
    model = package.Llama(str(gguf_path), n_ctx=context, logits_all=True, n_threads=1, n_threads_batch=1, verbose=False)
    try:
        return np.concatenate([_evaluated(model, each) for each in prompts])
    finally:
        model.close()


def _evaluated(model: Any, prompt: NDArray[np.int64]) -> Floats:
    model.reset()
    model.eval(prompt.tolist())
    logits: Floats = model.scores[: len(prompt)].copy()
    return logits
