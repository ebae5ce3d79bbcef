"""A thin wrapper over an ONNX Runtime session: inputs are read where they lie, outputs are written where they go."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..onnx_runtime import import_onnx_runtime, session_options
from .shapeless import shapeless
from .signature import ModelError, Port, feeds_of, port_of

Allocate = Callable[[tuple[int, ...], np.dtype[Any]], NDArray[Any]]
Shapes = tuple[tuple[int, ...], ...]

# How long an idle pool thread looks for work before it sleeps. On two cores of their own two threads gained 1.33 times
# with endless spinning and 1.36 times with 50 µs over not spinning's 0.88, and 50 µs takes no core from anybody else.
SPIN_US = 50
# Shapes remembered of outputs, per shape of inputs: a page has dozens of crop widths; a client that sends ever new
# shapes must not grow the table for ever.
MAX_SHAPES = 512


class Session:
    """One model, loaded for one thread at a time to call.

    `threads` is the size of its pool, the caller's thread included; they run on the cores that the process may use, or
    where `seats` (see pool_seats) says.
    `spin` lets idle pool threads look for work for a moment: only sensible where each has a core of its own.
    Raises `ModelError` when onnxruntime, the file or a provider is missing, or the file is no model that can run.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        threads: int = 1,
        spin: bool = False,
        seats: str = "",
        providers: Sequence[str] = ("CPUExecutionProvider",),
    ) -> None:
        if threads < 1:
            raise ModelError(f"model {path}: threads is {threads}; it takes at least the one that calls")
        self.path = Path(path).absolute()
        self.name = self.path.name
        self.threads = threads
        self.copied_outputs = 0
        runtime = import_onnx_runtime("inference", ModelError)
        options = session_options(runtime, threads, spin=spin, seats=seats)
        options.add_session_config_entry("session.intra_op.spin_duration_us", str(SPIN_US))
        self._session = _load(runtime, self.path, options, providers)
        self.inputs, self.outputs = self._ports(self._session.get_inputs()), self._ports(self._session.get_outputs())
        self._dtypes = {port.name: port.dtype for port in self.outputs}
        self._binding = self._session.io_binding()
        self._shapes: dict[Shapes, dict[str, tuple[int, ...] | None]] = {}
        self._varying: set[str] = set()  # outputs whose shape depends on what the inputs hold

    def _ports(self, nodes: Sequence[Any]) -> tuple[Port, ...]:
        """By name, for a model may list the same output twice."""
        without = shapeless(self.path) if any(not node.shape for node in nodes) else frozenset()
        named = {node.name: node for node in nodes}
        return tuple(
            port_of(node, self.name, has_shape=without is not None and name not in without)
            for name, node in named.items()
        )

    @property
    def metadata(self) -> dict[str, str]:
        """What the model's author wrote into it, such as a list of characters."""
        return dict(self._session.get_modelmeta().custom_metadata_map)

    def run(self, inputs: Any, allocate: Allocate = np.empty) -> dict[str, NDArray[Any]]:
        """Every output by name, each in an array from `allocate(shape, dtype)`.

        `inputs` is a dict by input name, or the bare tensor of a model with a single input; arrays may be read-only.
        Raises `MessageError` for inputs that do not fit, `ModelError` when the model fails on them.
        """
        feeds = feeds_of(inputs, self.inputs, self.name)
        shapes = tuple(tensor.shape for tensor in feeds.values())
        places = {name: allocate(shape, self._dtypes[name]) for name, shape in self._expected(feeds, shapes).items()}
        try:
            results = self._run(feeds, places, allocate)
        except Exception as error:
            if not places:
                raise self._failure(error) from error
            results = self._run_again(feeds, places, allocate)
        self._remember(shapes, results)
        return results

    def _run_again(
        self, feeds: Mapping[str, NDArray[Any]], places: Mapping[str, NDArray[Any]], allocate: Allocate
    ) -> dict[str, NDArray[Any]]:
        """Without expecting shapes: either one of them was wrong, or this too fails and tells why."""
        try:
            results = self._run(feeds, {}, allocate)
        except Exception as error:
            raise self._failure(error) from error
        self._varying |= {name for name, place in places.items() if place.shape != results[name].shape}
        return results

    def _run(
        self, feeds: Mapping[str, NDArray[Any]], places: Mapping[str, NDArray[Any]], allocate: Allocate
    ) -> dict[str, NDArray[Any]]:
        binding = self._binding
        try:
            for port in self.inputs:
                tensor = feeds[port.name]
                binding.bind_input(port.name, "cpu", 0, port.element, tensor.shape, tensor.ctypes.data)
            for port in self.outputs:
                place = places.get(port.name)
                if place is None:
                    binding.bind_output(port.name, "cpu")
                else:
                    binding.bind_output(port.name, "cpu", 0, port.element, place.shape, place.ctypes.data)
            self._session.run_with_iobinding(binding)
            return self._results(places, binding.get_outputs(), allocate)
        finally:
            # A binding would keep pointers into blocks that are somebody else's by then.
            binding.clear_binding_inputs()
            binding.clear_binding_outputs()

    def _results(
        self, places: Mapping[str, NDArray[Any]], values: Sequence[Any], allocate: Allocate
    ) -> dict[str, NDArray[Any]]:
        """What came out, each in its place. ONNX Runtime does not always write there: an output that is an input, say,
        it hands back where that lies, and one element it takes for another's shape.
        """
        results = {}
        for port, value in zip(self.outputs, values, strict=True):
            place, shape = places.get(port.name), tuple(value.shape())
            if place is not None and place.shape != shape:
                self._varying.add(port.name)
                place = None
            if place is None or value.data_ptr() != place.ctypes.data:
                place = allocate(shape, port.dtype) if place is None else place
                _copy(value, place)
                self.copied_outputs += 1
            results[port.name] = place
        return results

    def _expected(self, feeds: Mapping[str, NDArray[Any]], shapes: Shapes) -> dict[str, tuple[int, ...]]:
        """The shapes of outputs as far as they are known: from the last run with such inputs, else from the model."""
        named: dict[str, int] = {}
        for port in self.inputs:
            axes = zip(port.shape or (), feeds[port.name].shape, strict=False)
            named.update((axis, size) for axis, size in axes if isinstance(axis, str))
        expected = self._shapes.get(shapes) or {port.name: port.resolve(named) for port in self.outputs}
        return {name: shape for name, shape in expected.items() if shape is not None and name not in self._varying}

    def _remember(self, shapes: Shapes, results: Mapping[str, NDArray[Any]]) -> None:
        if shapes not in self._shapes:
            if len(self._shapes) >= MAX_SHAPES:
                self._shapes.clear()
            self._shapes[shapes] = {name: result.shape for name, result in results.items()}

    def _failure(self, error: Exception) -> ModelError:
        first = str(error).strip().partition("\n")[0]
        return ModelError(f"model {self.name} failed while it ran: {first}")


def _copy(value: Any, place: NDArray[Any]) -> None:
    """Copies a value of ONNX Runtime, which may be of a type that numpy has from another package, to its place."""
    if place.nbytes:
        ctypes.memmove(place.ctypes.data, value.data_ptr(), place.nbytes)


def _load(runtime: Any, path: Path, options: Any, providers: Sequence[str]) -> Any:
    if not path.is_file():
        raise ModelError(f"model file {path} does not exist; `path` counts from {Path.cwd()}")
    absent = [each for each in providers if each not in runtime.get_available_providers()]
    if absent:
        available = ", ".join(runtime.get_available_providers())
        raise ModelError(f"this onnxruntime has no provider {', '.join(absent)}; it has {available}")
    try:
        return runtime.InferenceSession(str(path), options, providers=list(providers))
    except Exception as error:
        raise ModelError(f"model file {path} cannot be loaded: {str(error).strip().partition(chr(10))[0]}") from error
