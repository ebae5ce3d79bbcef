"""GGUF files: what is written in them is read, and of a damaged one only ModelFileError comes."""

from __future__ import annotations

import contextlib
import os
import struct
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from gguf_file import blocks, gguf, tiny_model
from llm_files import checkpoint
from slabwire.actors.llm.model_file.gguf import Gguf, ModelFileError

METADATA: dict[str, Any] = {
    "general.architecture": "llama",
    "a.float": 0.5,
    "a.bool": True,
    "a.long": np.int64(-(2**40)),
    "a.double": np.float64(1 / 3),
    "a.byte": np.int8(-3),
    "texts": ["", "Ġt", "żółw", "<|im_end|>"],
    "no texts": [],
    "numbers": np.array([3, 1, 2], np.int32),
    "no numbers": np.array([], np.float32),
    "flags": np.array([True, False, True]),
}
TENSORS = {
    "matrix": blocks("Q4_1", 3, 64),
    "norm": blocks("F32", 7),
    "cube": blocks("Q8_0", 2, 3, 32),
    "half": blocks("F16", 5, 3),
}
SMALL = gguf(METADATA, TENSORS)


def written(folder: Path, data: bytes) -> Path:
    path = folder / "model.gguf"
    path.write_bytes(data)
    return path


def look_through(path: Path) -> None:
    """Opens the file and reads all that it gives."""
    with Gguf(path) as file:
        for tensor in file.tensors.values():
            assert tensor.data.sum() is not None


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("alignment", [None, 8, 256])
def test_what_is_written_is_read(tmp_path: Path, version: int, alignment: int | None) -> None:
    with Gguf(written(tmp_path, gguf(METADATA, TENSORS, version, alignment))) as file:
        for key, value in METADATA.items():
            got = file.metadata[key]
            assert type(got) is (type(value) if isinstance(value, list | np.ndarray) else type(np.array(value).item()))
            np.testing.assert_array_equal(got, value)
        assert list(file.tensors) == list(TENSORS)
        for name, (kind, shape, data) in TENSORS.items():
            tensor = file.tensors[name]
            assert (tensor.name, tensor.kind, tensor.shape, tensor.data.tobytes()) == (name, kind, shape, data)


def test_tensors_are_read_only_views(tmp_path: Path) -> None:
    with Gguf(written(tmp_path, SMALL)) as file:
        matrix, norm = file.tensors["matrix"].data, file.tensors["norm"].data
        assert (matrix.dtype.name, matrix.shape) == ("uint8", (3, 2 * 20))
        assert (norm.dtype.name, norm.shape) == ("float32", (7,))
        assert not any(each.flags.writeable or each.flags.owndata for each in (matrix, norm))


def test_a_view_outlives_its_file(tmp_path: Path) -> None:
    path = written(tmp_path, SMALL)
    with Gguf(path) as file:
        view = file.tensors["matrix"].data
    assert not file.tensors
    assert view.tobytes() == TENSORS["matrix"][2]
    del view
    assert str(path) not in [os.path.realpath(f"/proc/self/fd/{each}") for each in os.listdir("/proc/self/fd")]
    assert str(path) not in Path("/proc/self/maps").read_text()


def test_the_real_file() -> None:
    with Gguf(checkpoint()) as file:
        assert Counter(tensor.kind for tensor in file.tensors.values()) == {"Q4_1": 210, "F32": 61, "Q8_0": 1}
        assert len(file.metadata) == 33
        assert file.metadata["tokenizer.ggml.tokens"][:3] == ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
        assert len(file.metadata["tokenizer.ggml.merges"]) == 48900
        assert file.tensors["blk.29.ffn_down.weight"].shape == (576, 1536)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"model file .*/none.gguf cannot be read: No such file.*`path`"):
        Gguf(tmp_path / "none.gguf")
    with pytest.raises(ModelFileError, match="Is a directory"):
        Gguf(tmp_path)
    with pytest.raises(ModelFileError, match="is empty"):
        Gguf(written(tmp_path, b""))


def test_a_file_cut_short(tmp_path: Path) -> None:
    for length in range(1, len(SMALL)):
        with pytest.raises(ModelFileError, match=f"it ends at byte {length}, in the middle of .*; fetch it again"):
            look_through(written(tmp_path, SMALL[:length]))


# The entry of a tensor of one number: dimensions, size, kind.
ONE = struct.pack("<IQI", 1, 1, 0)


@pytest.mark.parametrize(
    ("data", "cause"),
    [
        (b"PK\3\4 a zip file", r"begins with b'PK\\x03\\x04' and not with b'GGUF'"),
        (b"GGUF" + struct.pack(">I", 3) + SMALL[8:], "version 50331648, big-endian"),
        (b"GGUF" + struct.pack("<I", 1) + SMALL[8:], "version 1,"),
        (gguf({"general.alignment": np.uint32(12)}, {}), "alignment is 12"),
        (gguf({"general.alignment": "x"}, {}), "alignment is 'x'"),
        (SMALL.replace(b"\4\0\0\0\0\0\0\0norm", b"\4\0\0\0\0\0\0\0cube"), "tensor 'cube' stands in it twice"),
        (SMALL.replace(b"a.float", b"a.\xff\xfeoat"), "the name of metadata 1 of 11 is not UTF-8"),
        (gguf({"k": 1}, {}).replace(b"k\4", b"k\x63"), "metadata 'k' has type 99"),
        (gguf({}, {"t": ("Q4_1", (3, 30), b"")}), r"tensor 't' cannot be \[3, 30\] of Q4_1"),
        (gguf({}, {"t": ("F32", (0,), b"")}), r"cannot be \[0\] of F32"),
        (gguf({}, {"t": ("F32", (1, 1, 1, 1, 1), b"1234")}), "has 5 dimensions"),
        (gguf({}, {"t": ("F32", (2**62, 2**62), b"1234")}), "in the middle of tensor 't'"),
        (gguf({}, {"t": ("F32", (1,), b"1234")}).replace(ONE, ONE[:-4] + b"\x29\0\0\0"), "type 41, which is not known"),
    ],
)
def test_a_file_that_is_wrong(tmp_path: Path, data: bytes, cause: str) -> None:
    with pytest.raises(ModelFileError, match=rf"model file .*/model\.gguf.*{cause}.*(fetch it again|another)"):
        look_through(written(tmp_path, data))


def test_counts_are_held_against_the_size_before_anything_is_made(tmp_path: Path) -> None:
    for count in (2**32, 2**60, 2**64 - 1):
        data = gguf({"texts": ["a"]}, {}).replace(struct.pack("<IQ", 8, 1), struct.pack("<IQ", 8, count))
        with pytest.raises(ModelFileError, match=f"in the middle of metadata 'texts', {count} strings"):
            Gguf(written(tmp_path, data))
        data = gguf({"numbers": np.array([1.5])}, {}).replace(struct.pack("<IQ", 12, 1), struct.pack("<IQ", 12, count))
        with pytest.raises(ModelFileError, match="in the middle of metadata 'numbers'"):
            Gguf(written(tmp_path, data))


MODEL = tiny_model()
LARGE = [struct.pack("<Q", 2**each - 1) for each in (8, 32, 62, 64)]
DAMAGE = st.tuples(st.integers(0, 3000), st.binary(min_size=1, max_size=8) | st.sampled_from(LARGE))


@given(st.lists(DAMAGE, min_size=1, max_size=4), st.booleans())
@example([(8, b"\xff" * 8)], False)
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_damage_is_a_model_file_error(tmp_path: Path, damage: list[tuple[int, bytes]], cut: bool) -> None:
    data = bytearray(MODEL)
    for at, replacement in damage:
        data[at : at + len(replacement)] = replacement
    with contextlib.suppress(ModelFileError):
        look_through(written(tmp_path, bytes(data[: len(data) // 2] if cut else data)))
