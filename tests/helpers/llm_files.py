"""The real chat model for tests: its file, and what it is converted to, once for all runs."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

from slabwire.actors.llm.model_file.artifacts import Artifacts, prepare
from slabwire.actors.llm.model_file.checkpoint import locate

_BUILD = Path(__file__).parents[2] / "build"


def cache_directory() -> Path:
    """Where converted models are kept: the folder that was chosen, else one that `make clean` removes."""
    return Path(os.environ.get("SLABWIRE_CACHE_DIR", _BUILD / "test-cache"))


@cache
def checkpoint() -> Path:
    """The GGUF file of SmolLM2-135M-Instruct."""
    return locate(cache=cache_directory(), progress=print)


@cache
def artifacts() -> Artifacts:
    """The model that ONNX Runtime loads, made of `checkpoint()`."""
    return prepare(checkpoint(), cache=cache_directory(), progress=print)
