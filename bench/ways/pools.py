"""ONNX Runtime's thread pools: as the plan sizes and pins them, only sized by it, and as it makes them by itself."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from ...actors.inference import Model
from ...actors.inference.session import Session
from ...actors.onnx_runtime import import_onnx_runtime
from ...runtime.actor.actor import Actor
from ...runtime.clients.async_client import AsyncClient
from ...runtime.launch.graph import Graph
from ..harness.contestant import BenchError
from .stages import Crowd

_WIDTH, _LAYERS, _ROWS = 512, 6, 32


def write_model(path: Path) -> None:
    """Six layers of 512: a run takes some ms on one core, in matrix products that a pool divides."""
    dice, nodes, weights, last = np.random.default_rng(0), [], [], "x"
    for layer in range(_LAYERS):
        weight = (dice.standard_normal((_WIDTH, _WIDTH)) / _WIDTH**0.5).astype(np.float32)
        weights.append(numpy_helper.from_array(weight, f"w{layer}"))
        nodes.append(helper.make_node("MatMul", [last, f"w{layer}"], [f"m{layer}"]))
        nodes.append(helper.make_node("Relu", [f"m{layer}"], [f"y{layer}"]))
        last = f"y{layer}"
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", _WIDTH]) for name in ("x", last)]
    graph = helper.make_graph(nodes, "mlp", ports[:1], ports[1:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    path.write_bytes(model.SerializeToString())


class SizedPool(Actor):
    """As many threads as the plan says, on any of the worker's CPUs."""

    def __init__(self, path: str) -> None:
        self._path = path

    def on_start(self) -> None:
        self._session = Session(self._path, threads=self.context.threads, spin=True)

    def infer(self, inputs: Any) -> Any:
        return self._session.run(inputs, self.loan)[f"y{_LAYERS - 1}"]


class OwnPool(Actor):
    """What ONNX Runtime does by itself: a thread for each core of the machine, pinned wherever it likes, spinning."""

    def __init__(self, path: str) -> None:
        self._path = path

    def on_start(self) -> None:
        self._session = import_onnx_runtime().InferenceSession(self._path, providers=["CPUExecutionProvider"])

    def infer(self, inputs: Any) -> Any:
        return self._session.run(None, {"x": inputs})[0]


class _Pools(Crowd):
    """`actors` of them, each with so many cores; calls go to them in turn."""

    actors, cores = 2, 1
    code: type[Actor] = Model

    def __init__(self, path: Path) -> None:
        graph = Graph(f"bench-{self.name.replace('_', '-')}-{os.getpid()}")
        for number in range(self.actors):
            node = graph.add(self.code, name=f"net{number}", cores=self.cores, path=str(path))
            graph.expose(node.infer)
        self._x = np.random.default_rng(1).standard_normal((_ROWS, _WIDTH)).astype(np.float32)
        self._answer: NDArray[Any] | None = None
        super().__init__(graph)

    async def call(self, client: AsyncClient, number: int) -> None:
        answer = await client.call(f"net{number % self.actors}.infer", self._x)
        if self._answer is None:
            self._answer = answer.copy()
        if not np.allclose(answer, self._answer, atol=1e-4):
            raise BenchError(f"{self.title}: a wrong answer")


class PlannedPools(_Pools):
    name = "planned_pools"
    title = "the plan's pools"


class OwnPools(_Pools):
    name = "own_pools"
    title = "ONNX Runtime's defaults"
    code = OwnPool


class _OnePool(_Pools):
    actors, cores = 1, 2


class PinnedPool(_OnePool):
    name = "pinned_pool"
    title = "the plan's pool, pinned"


class FreePool(_OnePool):
    name = "free_pool"
    title = "the plan's pool, not pinned"
    code = SizedPool


class OneOwnPool(_OnePool):
    name = "own_pool"
    title = "ONNX Runtime's default"
    code = OwnPool


TWO_ACTORS = (PlannedPools, OwnPools)
ONE_ACTOR = (PinnedPool, FreePool, OneOwnPool)
