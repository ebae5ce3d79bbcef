"""The network in ONNX Runtime: tokens in, logits out, keys and values read and written where they lie in slots."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...onnx_runtime import import_onnx_runtime, session_options
from ..model_file.architecture import Architecture
from .slots import Slots

Logits = NDArray[np.float32]
Tokens = NDArray[np.int64]


class Network:
    """A session over one converted model, bound to `slots`. One thread; `threads` sizes ONNX Runtime's own pool, whose
    threads sit where `seats` (see pool_seats) says.

    Source of the names of inputs and outputs: onnx_network.py.
    """

    def __init__(self, path: Path, architecture: Architecture, slots: Slots, threads: int, seats: str = "") -> None:
        self._session = _session(path, threads, seats)
        self._architecture = architecture
        self._slots = slots
        # One for all bindings: it is valid until the next call in any case.
        self._logits = np.zeros((slots.count, architecture.vocabulary), np.float32)
        self._prefills: dict[int, _Binding] = {}
        self._decodes: dict[tuple[int, int], _Binding] = {}

    def prefill(self, slot: int, tokens: Tokens, done: int) -> Logits:
        """Takes in `tokens`, int64 [n], behind the first `done` of a slot; logits float32 [vocabulary] of the last.

        At least two: a single one runs other kernels, which round differently. Valid until the next call.
        """
        self._slots.hold(slot, done + len(tokens))
        if slot not in self._prefills:
            self._prefills[slot] = self._bind(slot, 1)
        binding = self._prefills[slot]
        binding.set_tokens(tokens.reshape(1, -1))
        binding.lengths[0] = done + len(tokens) - 1
        binding.rows[0] = len(tokens) - 1
        logits: Logits = binding.run()[0]
        return logits

    def decode(self, first: int, tokens: list[int], done: list[int]) -> Logits:
        """One token for each slot from `first` on, behind the `done` that each has; logits float32 [n, vocabulary].

        Valid until the next call.
        """
        for index, length in enumerate(done):
            self._slots.hold(first + index, length + 1)
        key = first, len(tokens)
        if key not in self._decodes:
            self._decodes[key] = self._bind(*key)
        binding = self._decodes[key]
        binding.tokens[:, 0] = tokens
        binding.lengths[:] = done
        return binding.run()

    def _bind(self, first: int, count: int) -> _Binding:
        return _Binding(self._session, self._architecture.layers, self._slots, self._logits, first, count)


class _Binding:
    """Buffers bound once for `count` slots from `first` on: building one takes as long as a sixth of a step."""

    def __init__(self, session: Any, layers: int, slots: Slots, logits: Logits, first: int, count: int) -> None:
        self._session = session
        self._binding = session.io_binding()
        self.lengths = np.zeros(count, np.int32)
        self.rows = np.arange(count, dtype=np.int64)
        self._total = np.zeros(1, np.int32)
        self._logits = logits = logits[:count]
        self.set_tokens(np.zeros((count, 1), np.int64))
        for name, array in (("seqlens_k", self.lengths), ("total_len", self._total), ("rows", self.rows)):
            self._binding.bind_input(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
        self._binding.bind_output("logits", "cpu", 0, np.float32, logits.shape, logits.ctypes.data)
        shape = (count, *slots.array.shape[2:])
        for layer in range(layers):
            for offset, part in enumerate(("key", "value")):
                address = slots.address(2 * layer + offset, first)
                self._binding.bind_input(f"past.{layer}.{part}", "cpu", 0, np.float32, shape, address)
                self._binding.bind_output(f"present.{layer}.{part}", "cpu", 0, np.float32, shape, address)

    def set_tokens(self, tokens: Tokens) -> None:
        self.tokens = np.ascontiguousarray(tokens)
        self._binding.bind_input("input_ids", "cpu", 0, np.int64, self.tokens.shape, self.tokens.ctypes.data)

    def run(self) -> Logits:
        self._total[0] = self.lengths.max() + 1
        self._session.run_with_iobinding(self._binding)
        return self._logits


def _session(path: Path, threads: int, seats: str) -> Any:
    runtime = import_onnx_runtime()
    options = session_options(runtime, threads, seats=seats)
    # The graph is written as it runs, and was packed so.
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
