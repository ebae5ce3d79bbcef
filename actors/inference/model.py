"""The actor that runs an ONNX model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ...runtime.actor.actor import Actor

if TYPE_CHECKING:
    from .session import Session
    from .signature import Port


class Model(Actor):
    """Any ONNX model: `graph.add(Model, name="detect", path="detect.onnx")`.

    `threads`: the size of its thread pool; None takes the cores that the plan gave it (`graph.add(..., cores=2)`).
    `providers`: ONNX Runtime's execution providers, in order of preference.
    A missing file or extra, or a file that is no model, ends the start with an error that names it.
    """

    def __init__(
        self, path: str, threads: int | None = None, providers: Sequence[str] = ("CPUExecutionProvider",)
    ) -> None:
        self.path = path
        self.threads = threads
        self.providers = tuple(providers)
        self.session: Session | None = None

    def on_start(self) -> None:
        # Imported here, so that only the process that runs the model needs (and holds) ONNX Runtime.
        from ..onnx_runtime import pool_seats
        from .session import Session

        planned = self.context.threads
        threads = self.threads or planned
        self.session = Session(
            self.path,
            threads=threads,
            spin=threads <= planned,
            seats=pool_seats(threads, self.context.cores),
            providers=self.providers,
        )

    def infer(self, inputs: Any) -> Any:
        """Run the model once.

        `inputs`: a dict of ndarrays by input name, or, where the model has a single input, that ndarray itself. They
        are read where they lie. Answers with a dict of ndarrays by output name, or, where the model has a single
        output, with that ndarray; they are written where the caller will read them.
        Raises `MessageError` (the input, what it should be, what it is) and `ModelError`.
        """
        outputs = self._loaded().run(inputs, self.loan)
        return outputs if len(outputs) > 1 else next(iter(outputs.values()))

    def describe(self) -> dict[str, Any]:
        """What the model takes and gives: {"path", "inputs", "outputs", "metadata", "threads"}.

        Inputs and outputs are lists of {"name", "dtype", "shape"}; an axis is an int where it is fixed, a str where the
        model names it, None where it is open. The shape itself is None where the model says none: any will do.
        """
        session = self._loaded()
        return {
            "path": str(session.path),
            "inputs": [_plain(port) for port in session.inputs],
            "outputs": [_plain(port) for port in session.outputs],
            "metadata": session.metadata,
            "threads": session.threads,
        }

    def _loaded(self) -> Session:
        if self.session is None:
            raise RuntimeError(f"model {self.path} is not loaded: a worker calls on_start() before any handler")
        return self.session


def _plain(port: Port) -> dict[str, Any]:
    shape = None if port.shape is None else list(port.shape)
    return {"name": port.name, "dtype": str(port.dtype), "shape": shape}
