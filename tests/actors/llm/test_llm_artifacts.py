"""What is made of a GGUF file: the graph that computes what it says, and the cached model."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from gguf_file import TINY, blocks, gguf, tiny_model, tiny_tensors
from llm_files import artifacts, checkpoint
from slabwire.actors.llm.model_file import onnx_network as graph
from slabwire.actors.llm.model_file.architecture import Architecture
from slabwire.actors.llm.model_file.artifacts import prepare
from slabwire.actors.llm.model_file.cache_folder import CacheFolder, cache_directory
from slabwire.actors.llm.model_file.gguf import Gguf, ModelFileError
from slabwire.actors.onnx_runtime import import_onnx_runtime
from slabwire.bench.fidelity.reference import reference_logits
from waiting import wait_until

Floats = NDArray[np.float32]
TOKENS = np.array([5, 9, 9, 0, 63, 31, 7, 8, 40, 2, 11], np.int64)
# "The Thames is a river that flows through southern England including London. At 215 miles it is the longest river
# entirely in England and the second-longest in the United Kingdom, after the River Severn."
THAMES = [
    *(504, 30674, 314, 253, 4626, 338, 8634, 738, 5677, 3996, 1285, 4528, 30, 1814, 216, 34, 33, 37),
    *(4158, 357, 314, 260, 15019, 4626, 5864, 281, 3996, 284, 260, 1796, 29, 5480, 381, 281, 260, 1797),
    *(8378, 28, 990, 260, 3992, 31822, 94, 30),
]


def written(folder: Path, data: bytes) -> Path:
    path = folder / "tiny.gguf"
    path.write_bytes(data)
    return path


class Runner:
    """A graph in ONNX Runtime, fed with plain arrays."""

    def __init__(self, model: Path, architecture: Architecture, room: int = 128) -> None:
        runtime = import_onnx_runtime()
        options = runtime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 4
        self.session = runtime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        shape = (1, architecture.kv_heads, room, architecture.head_dim)
        names = [f"{layer}.{part}" for layer in range(architecture.layers) for part in ("key", "value")]
        self.caches = {name: np.zeros(shape, np.float32) for name in names}

    def run(self, tokens: NDArray[np.int64], done: int = 0, rows: list[int] | None = None) -> Floats:
        """Logits of the tokens behind `done` earlier ones, or of some of them."""
        total = done + len(tokens)
        feeds = {
            "input_ids": tokens[None],
            "seqlens_k": np.array([total - 1], np.int32),
            "total_len": np.array([total], np.int32),
            "rows": np.array(range(len(tokens)) if rows is None else rows, np.int64),
            **{f"past.{name}": values for name, values in self.caches.items()},
        }
        logits, *present = self.session.run(["logits", *(f"present.{name}" for name in self.caches)], feeds)
        self.caches = dict(zip(self.caches, present, strict=True))
        result: Floats = logits
        return result


def converted(path: Path, folder: Path, accuracy_level: int) -> Runner:
    with Gguf(path) as file:
        of = Architecture.of(file)
        return Runner(graph.write(file, of, folder, accuracy_level=accuracy_level), of)


@pytest.mark.parametrize(
    ("kind", "embedding", "output"),
    [("Q4_1", "Q8_0", None), ("Q4_0", "Q4_0", None), ("Q8_0", "Q8_0", "Q4_1"), ("Q4_1", "Q4_0", "Q8_0")],
)
def test_the_graph_computes_what_the_file_says(tmp_path: Path, kind: str, embedding: str, output: str | None) -> None:
    path = written(tmp_path, tiny_model(kind, embedding, output))
    with Gguf(path) as file:
        (expected,) = reference_logits(file, [TOKENS])
    runner = converted(path, tmp_path, accuracy_level=0)
    assert expected.std() > 0.5  # it says something
    np.testing.assert_allclose(runner.run(TOKENS), expected, atol=2e-3)
    # In pieces, as prefill and decode do; only some logits are wanted.
    runner.run(TOKENS[:4], rows=[])
    np.testing.assert_allclose(runner.run(TOKENS[4:10], 4, rows=[5, 0]), expected[[9, 4]], atol=2e-3)
    np.testing.assert_allclose(runner.run(TOKENS[10:], 10), expected[10:], atol=2e-3)


def log_softmax(logits: Floats) -> NDArray[np.float64]:
    shifted = logits.astype(np.float64) - logits.max(-1, keepdims=True)
    result: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    return result


def divergence(expected: Floats, got: Floats) -> float:
    """The mean Kullback-Leibler divergence over the positions."""
    p, q = log_softmax(expected), log_softmax(got)
    return float((np.exp(p) * (p - q)).sum(-1).mean())


@pytest.fixture(scope="module")
def expected_thames() -> Floats:
    with Gguf(checkpoint()) as file:
        return reference_logits(file, [np.array(THAMES)])[0]


def test_the_real_model_is_exact_but_for_its_rounded_inputs(tmp_path: Path, expected_thames: Floats) -> None:
    exact = converted(checkpoint(), tmp_path, accuracy_level=0).run(np.array(THAMES))
    assert divergence(expected_thames, exact) < 1e-8
    np.testing.assert_array_equal(exact.argmax(-1), expected_thames.argmax(-1))


def test_the_cached_real_model(expected_thames: Floats) -> None:
    with Gguf(checkpoint()) as file:
        of = Architecture.of(file)
    assert of == Architecture(30, 576, 1536, 9, 3, 64, 1e5, of.epsilon, 8192, 49152)
    runner = Runner(artifacts().model_path, of)
    rounded = runner.run(np.array(THAMES))
    assert divergence(expected_thames, rounded) < 0.02
    assert (rounded.argmax(-1) == expected_thames.argmax(-1)).mean() > 0.9
    # Its weights are mapped, so that processes share them.
    assert str(artifacts().folder / "weights.bin") in Path("/proc/self/maps").read_text()


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({"block_count": "many"}, "metadata 'llama.block_count' is 'many'; it must be a whole number from 1"),
        ({"block_count": 0}, "must be a whole number from 1"),
        ({"block_count": 3}, "tensor 'blk.2.attn_q.weight' is missing|tensor 'blk.2.attn_norm.weight' is missing"),
        ({"block_count": 1}, "it has 9 tensors whose use is not known here, such as blk.1.attn_k.weight"),
        ({"context_length": 1 << 30}, "it must be a whole number from 1 to 1048576"),
        ({"attention__head_count_kv": 3}, "4 heads of 16 numbers cannot share 3 heads of keys"),
        ({"attention__head_count_kv": 4}, r"'blk.0.attn_k.weight' is \[32, 64\], its metadata mean \[64, 64\]"),
        ({"attention__value_length": 32}, "'llama.attention.value_length' is 32; it must be 16, the only one"),
        ({"rope__scaling__type": "yarn"}, "must be 'none', the only one known here"),
        ({"rope__freq_base": 0.5}, "must be a number of at least 1"),
        ({"expert_count": 8}, "must be 0, the only one known here"),
    ],
)
def test_metadata_that_would_be_computed_wrongly(tmp_path: Path, changes: dict[str, Any], cause: str) -> None:
    path = written(tmp_path, tiny_model(**changes))
    with pytest.raises(ModelFileError, match=rf"tiny\.gguf: .*({cause}).*give another GGUF file"):
        converted(path, tmp_path, accuracy_level=0)


@pytest.mark.parametrize(
    ("metadata", "tensors", "cause"),
    [
        ({**TINY, "general.architecture": "qwen2"}, {}, "its architecture is 'qwen2'; only 'llama' is known here"),
        ({}, {}, "its architecture is None"),
        ({**TINY, "tokenizer.ggml.tokens": []}, {}, "it has no tokens"),
        ({key: TINY[key] for key in TINY if "epsilon" not in key}, {}, r"layer_norm_rms_epsilon' is missing"),
        (TINY, tiny_tensors(embedding="Q4_1"), "'token_embd.weight' is Q4_1, and must be Q8_0 or Q4_0"),
        (TINY, {**tiny_tensors(), "rope_freqs.weight": blocks("F32", 8)}, "not known here, such as rope_freqs.weight"),
        (TINY, {**tiny_tensors(), "blk.1.attn_v.weight": blocks("Q8_0", 32, 64)}, "blk.1 are not of as many bits"),
        (TINY, {**tiny_tensors(), "blk.1.ffn_up.weight": blocks("F16", 96, 64)}, "'blk.1.ffn_up.weight' is .* of F16"),
    ],
)
def test_files_of_other_models(tmp_path: Path, metadata: Any, tensors: Any, cause: str) -> None:
    path = written(tmp_path, gguf(metadata, tensors))
    with pytest.raises(ModelFileError, match=rf"model file .*tiny\.gguf: .*{cause}.*GGUF file"):
        converted(path, tmp_path, accuracy_level=0)


MODEL = tiny_model()
DAMAGE = st.tuples(st.integers(0, 3000), st.binary(min_size=1, max_size=4))


@given(st.lists(DAMAGE, min_size=1, max_size=3))
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_only_model_file_errors_come_of_a_damaged_file(tmp_path: Path, damage: list[tuple[int, bytes]]) -> None:
    data = bytearray(MODEL)
    for at, replacement in damage:
        data[at : at + len(replacement)] = replacement
    with contextlib.suppress(ModelFileError), Gguf(written(tmp_path, bytes(data))) as file:
        graph.write(file, Architecture.of(file), tmp_path)


class Said(list[str]):
    """What a call told of its progress."""

    def __call__(self, sentence: str) -> None:
        self.append(sentence)

    def has(self, words: str) -> bool:
        return any(words in sentence for sentence in self)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return written(tmp_path, tiny_model())


def test_a_model_is_converted_once(tmp_path: Path, model: Path) -> None:
    cache, first, second = tmp_path / "cache", Said(), Said()
    made = prepare(model, cache=cache, progress=first)
    assert [sentence.split()[0] for sentence in first] == ["converting", "converted"]
    assert prepare(model, cache=cache, progress=second) == made
    assert second == []
    assert made.model_path.parent == made.folder
    assert sorted(os.listdir(made.folder)) == ["manifest.json", "model.onnx", "weights.bin"]
    assert [each.stat().st_mode & 0o777 for each in (cache / "models", made.folder)] == [0o700, 0o700]


def test_the_cached_model_computes_as_the_plain_one(tmp_path: Path, model: Path) -> None:
    plain = converted(model, tmp_path, accuracy_level=4)
    with Gguf(model) as file:
        cached = Runner(prepare(model, cache=tmp_path, progress=print).model_path, Architecture.of(file))
    np.testing.assert_array_equal(cached.run(TOKENS), plain.run(TOKENS))


def test_other_models_have_other_folders(tmp_path: Path, model: Path) -> None:
    first = prepare(model, cache=tmp_path / "cache", progress=print)
    second = prepare(written(tmp_path, tiny_model("Q4_0")), cache=tmp_path / "cache", progress=print)
    assert first.folder != second.folder
    assert first.sha256 != second.sha256


@pytest.mark.parametrize("file", ["manifest.json", "model.onnx", "weights.bin"])
@pytest.mark.parametrize("harm", ["cut", "removed"])
def test_a_damaged_model_is_made_again(tmp_path: Path, model: Path, file: str, harm: str) -> None:
    made = prepare(model, cache=tmp_path, progress=print)
    whole = {each.name: each.read_bytes() for each in made.folder.iterdir()}
    if harm == "cut":
        os.truncate(made.folder / file, 40)
    else:
        (made.folder / file).unlink()
    said = Said()
    assert prepare(model, cache=tmp_path, progress=said) == made
    assert said[0] == f"the converted model in {made.folder} is damaged: it is made again"
    assert {each.name: each.read_bytes() for each in made.folder.iterdir()} == whole


def test_a_manifest_of_something_else(tmp_path: Path, model: Path) -> None:
    made = prepare(model, cache=tmp_path, progress=print)
    for text in ("[]", "{}", '{"sizes": 3}', '{"sizes": {"weights.bin": "much"}}'):
        (made.folder / "manifest.json").write_text(text)
        said = Said()
        prepare(model, cache=tmp_path, progress=said)
        assert said.has("is made again")
        assert json.loads((made.folder / "manifest.json").read_text())["source"] == str(model)


def test_the_second_of_two_waits_for_the_first(tmp_path: Path, model: Path) -> None:
    elsewhere = prepare(model, cache=tmp_path / "elsewhere", progress=print).folder
    folder, said = CacheFolder("models", tmp_path / "cache"), Said()
    second = threading.Thread(target=prepare, args=(model,), kwargs={"cache": tmp_path / "cache", "progress": said})
    with folder.exclusively("a test", print):
        second.start()
        wait_until(lambda: said == ["waiting for the conversion of tiny.gguf: another process makes it"])
        with folder.making(elsewhere.name) as unfinished:
            shutil.copytree(elsewhere, unfinished, dirs_exist_ok=True)
    second.join()
    assert len(said) == 1


# Begins to make something, says so, and never ends.
STUCK = """
import sys, pathlib, signal
from slabwire.actors.llm.model_file.cache_folder import CacheFolder
folder = CacheFolder("models", pathlib.Path(sys.argv[1]))
with folder.exclusively("a test", print), folder.making("half") as unfinished:
    (unfinished / "weights.bin").write_bytes(bytes(1000))
    print("begun", flush=True)
    signal.pause()
"""


@contextlib.contextmanager
def stuck_in(cache: Path) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen([sys.executable, "-c", STUCK, cache], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        try:
            yield process
        finally:
            process.kill()


def test_what_a_killed_converter_leaves_is_removed(tmp_path: Path, model: Path) -> None:
    with stuck_in(tmp_path) as process:
        said = Said()
        second = threading.Thread(target=prepare, args=(model,), kwargs={"cache": tmp_path, "progress": said})
        second.start()
        wait_until(lambda: said.has("waiting"))
        assert (tmp_path / "models" / "half.unfinished" / "weights.bin").exists()  # not while its maker lives
        process.kill()
        second.join()
    assert said[-1].startswith("converted")
    assert not [each for each in os.listdir(tmp_path / "models") if "unfinished" in each or each == "half"]


def test_a_conversion_that_fails_leaves_nothing(tmp_path: Path) -> None:
    path = written(tmp_path, gguf(TINY, tiny_tensors(embedding="Q4_1")))
    with pytest.raises(ModelFileError, match="token_embd"):
        prepare(path, cache=tmp_path, progress=print)
    assert os.listdir(tmp_path / "models") == [".lock"]


@pytest.mark.parametrize("part", [0.01, 0.5, 0.99])
def test_no_room(tmp_path: Path, model: Path, part: float) -> None:
    """A limit on the size of files, that lets a part of the weights through, stands for a full disk."""
    whole = prepare(model, cache=tmp_path / "elsewhere", progress=print).folder / "weights.bin"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(part * whole.stat().st_size), before[1]))
    try:
        with pytest.raises(ModelFileError, match=rf"the cache folder {tmp_path}/models .*set SLABWIRE_CACHE_DIR to"):
            prepare(model, cache=tmp_path, progress=print)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert os.listdir(tmp_path / "models") == [".lock"]


def test_a_cache_folder_that_cannot_be_made(tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("SLABWIRE_CACHE_DIR", str(tmp_path / "file"))
    with pytest.raises(ModelFileError, match=r"file/models cannot be used: Not a directory; .*SLABWIRE_CACHE_DIR"):
        prepare(model, progress=print)


def test_a_cache_folder_that_others_may_write(tmp_path: Path, model: Path) -> None:
    prepare(model, cache=tmp_path, progress=print)
    (tmp_path / "models").chmod(0o777)
    shutil.rmtree(next((tmp_path / "models").glob("*-onnxruntime*")))
    with pytest.raises(
        ModelFileError, match=f"others may write .*: chmod 700 {tmp_path}/models, or set SLABWIRE_CACHE"
    ):
        prepare(model, cache=tmp_path, progress=print)


def test_a_model_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"none\.gguf cannot be read: No such file"):
        prepare(tmp_path / "none.gguf", cache=tmp_path, progress=print)


def test_where_the_cache_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("SLABWIRE_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", "/elsewhere")
    assert cache_directory() == tmp_path
    monkeypatch.delenv("SLABWIRE_CACHE_DIR")
    assert cache_directory() == Path("/elsewhere/slabwire")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache_directory() == Path("/home/me/.cache/slabwire")
