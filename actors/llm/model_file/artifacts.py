"""From a GGUF file to a model that ONNX Runtime loads at once and shares between processes: made once, then kept.

The cached model holds its weights as this processor's kernels want them ("prepacked"), in a file that every process
maps. Their layout depends on the version of ONNX Runtime and on the processor: both are in the name of the cached
folder, beside the checksum of the GGUF file and the version of the conversion.
"""

from __future__ import annotations

import hashlib
import json
import platform
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ....runtime.host.heap import give_heap_back
from ...onnx_runtime import import_onnx_runtime, session_options
from .architecture import Architecture
from .cache_folder import CacheFolder, Progress
from .gguf import Gguf, ModelFileError

# The version of what onnx_network.py and quantisation.py write: raise it when they write something else.
FORMAT = 1
_MODEL, _WEIGHTS, _MANIFEST = "model.onnx", "weights.bin", "manifest.json"


@dataclass(frozen=True)
class Artifacts:
    """What was made of a GGUF file: `model_path`, in `folder`, is what to load. `sha256` is the GGUF file's."""

    folder: Path
    model_path: Path
    sha256: str


def prepare(gguf_path: Path, *, cache: Path | None = None, progress: Progress) -> Artifacts:
    """The model to load for a GGUF file, converted if no earlier call has done so: seconds, once.

    Of several processes one converts, and the others wait for it. `progress` is told in sentences what takes time.
    `cache`: where converted models are kept; by default the user's cache folder.
    Raises `ModelFileError`: a file that cannot be used, a package that is missing, a folder without room.
    """
    runtime = import_onnx_runtime("llm", ModelFileError)
    sha256 = _sha256(gguf_path)
    folder = CacheFolder("models", cache)
    name = f"{sha256[:32]}-{FORMAT}-onnxruntime{runtime.__version__}-{_processor()}"
    made = Artifacts(folder.path / name, folder.path / name / _MODEL, sha256)
    if not _is_whole(made.folder):
        with folder.exclusively(f"the conversion of {gguf_path.name}", progress):
            # Another process may have made it meanwhile.
            if not _is_whole(made.folder):
                _convert(runtime, gguf_path, folder, name, progress)
    return made


def _convert(runtime: Any, gguf_path: Path, folder: CacheFolder, name: str, progress: Progress) -> None:
    if (folder.path / name).exists():
        progress(f"the converted model in {folder.path / name} is damaged: it is made again")
    progress(f"converting {gguf_path.name} for ONNX Runtime {runtime.__version__} (once; takes seconds)")
    began = time.perf_counter()
    with folder.making(name) as unfinished:
        plain = unfinished / "plain"
        plain.mkdir()
        _write_plain(gguf_path, plain)
        _prepack(runtime, plain / _MODEL, unfinished / _MODEL)
        shutil.rmtree(plain)
        sizes = {file: (unfinished / file).stat().st_size for file in (_MODEL, _WEIGHTS)}
        (unfinished / _MANIFEST).write_text(json.dumps({"source": str(gguf_path), "sizes": sizes}))
    give_heap_back()
    took_s, nbytes = time.perf_counter() - began, sum(sizes.values())
    progress(f"converted {gguf_path.name} in {took_s:.1f} s: {nbytes / 1e6:.0f} MB in {folder.path / name}")


def _write_plain(gguf_path: Path, folder: Path) -> None:
    """The same for every machine."""
    # Imported here, so that only the process that converts needs (and holds) onnx.
    try:
        from . import onnx_network as graph
    except ImportError as error:
        raise ModelFileError(f"onnx cannot be imported ({error}); pip install 'slabwire[llm]'") from error
    with Gguf(gguf_path) as gguf:
        graph.write(gguf, Architecture.of(gguf), folder)


def _prepack(runtime: Any, plain: Path, packed: Path) -> None:
    """Loads the model, which packs its weights for this processor, and has it written as it is then."""
    options = session_options(runtime, threads=1)
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.optimized_model_filepath = str(packed)
    options.add_session_config_entry("session.optimized_model_external_initializers_file_name", _WEIGHTS)
    options.add_session_config_entry("session.save_external_prepacked_constant_initializers", "1")
    try:
        runtime.InferenceSession(str(plain), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        # It does not say of a write that failed why: mostly the disk is full.
        raise OSError(f"ONNX Runtime cannot pack the model: {str(error).strip().splitlines()[0]}") from error


def _is_whole(folder: Path) -> bool:
    """Whether the files are there with the sizes that were noted after they were written."""
    try:
        sizes: Mapping[str, int] = json.loads((folder / _MANIFEST).read_text())["sizes"]
        return all((folder / name).stat().st_size == nbytes for name, nbytes in sizes.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _sha256(path: Path) -> str:
    """Reading the file costs a start less than loading the model does: not worth remembering."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ModelFileError(f"model file {path} cannot be read: {error.strerror or error}; check `path`") from error


def _processor() -> str:
    """Stands for all that this processor can do, as far as kernels are chosen by it."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    able = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    words = " ".join([platform.machine(), *sorted(able.split())])
    return hashlib.sha256(words.encode()).hexdigest()[:16]
