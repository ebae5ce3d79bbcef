"""The ONNX Runtime session by itself: real models of the text recogniser, and tiny ones for the corner cases."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

import ocr
import tiny_onnx
from slabwire.actors.inference import Model
from slabwire.actors.inference.session import MAX_SHAPES, Session
from slabwire.actors.inference.signature import ModelError
from slabwire.runtime.actor.context import Context
from slabwire.runtime.errors import MessageError
from tiny_onnx import FLOAT, INT64, STRING


class Places:
    """Stands for an actor's slab: remembers what it handed out."""

    def __init__(self) -> None:
        self.given: list[NDArray[Any]] = []

    def loan(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        self.given.append(np.full(shape, 0, dtype))
        return self.given[-1]


class Desk:
    """Stands for the worker: an actor's loans and its context."""

    def __init__(self, cores: tuple[int, ...]) -> None:
        self.places = Places()
        self.loan = self.places.loan
        self.context = Context(request=1, attempt=1, trace="", actor="model", cores=cores, threads=max(1, len(cores)))


def started(path: str | Path, cores: tuple[int, ...] = (0,), **arguments: Any) -> Model:
    model = Model(str(path), **arguments)
    model._binding = Desk(cores)  # type: ignore[assignment]
    model.on_start()
    return model


@pytest.fixture(scope="module")
def detect() -> Session:
    return Session(ocr.model_path("det"))


def tiny(folder: Path, nodes: Any, inputs: Any, outputs: Any) -> Session:
    path = folder / "tiny.onnx"
    path.write_bytes(tiny_onnx.model(nodes, inputs, outputs))
    return Session(path)


@pytest.fixture
def add(tmp_path: Path) -> Session:
    return tiny(
        tmp_path,
        [("Add", ["x", "y"], ["sum"]), ("Sub", ["x", "y"], ["difference"])],
        [("x", FLOAT, ["n", 3]), ("y", FLOAT, ["n", 3])],
        [("sum", FLOAT, ["n", 3]), ("difference", FLOAT, ["n", 3])],
    )


@pytest.fixture
def nonzero(tmp_path: Path) -> Session:
    return tiny(tmp_path, [("NonZero", ["x"], ["where"])], [("x", FLOAT, ["n"])], [("where", INT64, [1, "found"])])


def page_like(height: int = 64, width: int = 96) -> NDArray[np.float32]:
    return np.random.default_rng(1).random((1, 3, height, width), np.float32)


def straight(tensor: NDArray[np.float32]) -> NDArray[np.float32]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(ocr.model_path("det"), options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": tensor})[0])


def test_a_real_model_answers_as_onnx_runtime_alone_does(detect: Session) -> None:
    (scores,) = detect.run(page_like()).values()
    np.testing.assert_array_equal(scores, straight(page_like()))


def test_an_output_is_written_where_it_goes_once_its_shape_is_known(detect: Session) -> None:
    shapes = (32, 64)
    detect.run(page_like(*shapes))
    copied, places = detect.copied_outputs, Places()
    (scores,) = detect.run(page_like(*shapes), places.loan).values()
    assert detect.copied_outputs == copied
    assert [place is scores for place in places.given] == [True]
    np.testing.assert_array_equal(scores, straight(page_like(*shapes)))


def test_named_axes_tell_an_outputs_shape_before_the_first_run(add: Session) -> None:
    x = np.ones((4, 3), np.float32)
    results = add.run({"x": x, "y": 2 * x})
    assert add.copied_outputs == 0
    assert results["sum"].tolist() == [[3] * 3] * 4
    assert results["difference"].tolist() == [[-1] * 3] * 4


def test_an_input_may_be_read_only_strided_or_transposed(add: Session) -> None:
    x = np.arange(12, dtype=np.float32).reshape(4, 3)
    frozen = x.copy()
    frozen.flags.writeable = False
    expected = (x + x).tolist()
    for same in (frozen, np.repeat(x, 2, axis=0)[::2], np.ascontiguousarray(x.T).T):
        assert add.run({"x": same, "y": frozen})["sum"].tolist() == expected


def test_an_output_whose_shape_follows_the_values_is_never_cut(nonzero: Session) -> None:
    for values in ([0, 1, 2], [0, 0, 5], [1, 1, 1], [0, 0, 0]):
        found = nonzero.run(np.array(values, np.float32))["where"]
        assert found.tolist() == [np.flatnonzero(values).tolist()]


def test_a_wrongly_named_axis_costs_one_more_run_and_no_answer(tmp_path: Path) -> None:
    session = tiny(tmp_path, [("NonZero", ["x"], ["where"])], [("x", FLOAT, ["n"])], [("where", INT64, [1, "n"])])
    for values in ([0, 1, 2], [0, 0, 5]):
        found = session.run(np.array(values, np.float32))["where"]
        assert found.tolist() == [np.flatnonzero(values).tolist()]


def test_inputs_and_outputs_of_earlier_runs_are_let_go(add: Session) -> None:
    """What ONNX Runtime was bound to belongs to others afterwards; a later run must not write there."""
    x = np.ones((2, 3), np.float32)
    first = add.run({"x": x, "y": x})["sum"]
    kept = first.copy()
    add.run({"x": 5 * x, "y": x})
    np.testing.assert_array_equal(first, kept)


def test_the_table_of_shapes_is_bounded(add: Session) -> None:
    for rows in range(1, MAX_SHAPES + 5):
        x = np.ones((rows, 3), np.float32)
        assert add.run({"x": x, "y": x})["sum"].shape == (rows, 3)
    assert len(add._shapes) <= MAX_SHAPES


def test_a_scalar_input_may_be_a_number(tmp_path: Path) -> None:
    session = tiny(
        tmp_path,
        [("Mul", ["x", "rate"], ["y"])],
        [("x", FLOAT, [2]), ("rate", FLOAT, [])],
        [("y", FLOAT, [2])],
    )
    assert session.run({"x": np.array([1, 2], np.float32), "rate": 3})["y"].tolist() == [3, 6]


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({"x": np.ones((2, 3), np.float32)}, ["missing input y", "float32[n, 3]"]),
        ({"x": 1, "z": 2}, ["no input z", "x (float32[n, 3])"]),
        (np.ones((2, 3), np.float32), ["2 inputs", "'x', 'y'"]),
        ({"x": np.ones((2, 3)), "y": 0}, ["input x", "float64", "astype(np.float32)"]),
        ({"x": np.ones(3, np.float32), "y": 0}, ["input x", "1 axes", "[3]"]),
        ({"x": np.ones((2, 4), np.float32), "y": 0}, ["input x", "[2, 4]", "float32[n, 3]"]),
        ({"x": [[1.0, 2.0, 3.0]], "y": 0}, ["input x", "list", "numpy array"]),
    ],
)
def test_a_wrong_input_is_named_with_what_it_should_be(add: Session, inputs: Any, words: list[str]) -> None:
    with pytest.raises(MessageError) as caught:
        add.run(inputs)
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_a_model_that_fails_says_so_and_goes_on(detect: Session, add: Session) -> None:
    with pytest.raises(ModelError, match=r"PP-OCRv4_det_infer.onnx failed while it ran"):
        detect.run(np.ones((1, 3, 33, 45), np.float32))
    detect.run(page_like())
    x = np.ones((2, 3), np.float32)
    with pytest.raises(ModelError, match="failed while it ran"):
        add.run({"x": x, "y": np.ones((4, 3), np.float32)})
    assert add.run({"x": x, "y": x})["sum"].shape == (2, 3)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"absent\.onnx does not exist"):
        Session(tmp_path / "absent.onnx")


def test_a_file_that_is_no_model_is_named(tmp_path: Path) -> None:
    path = tmp_path / "notes.onnx"
    path.write_text("no model")
    with pytest.raises(ModelError, match=r"notes\.onnx cannot be loaded"):
        Session(path)


def test_an_unknown_provider_is_named_beside_those_that_are_there() -> None:
    with pytest.raises(ModelError, match=r"no provider Abacus; it has .*CPUExecutionProvider"):
        Session(ocr.model_path("det"), providers=["Abacus"])


def test_strings_cannot_be_carried(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"'s' is a tensor\(string\)"):
        tiny(tmp_path, [("Identity", ["s"], ["t"])], [("s", STRING, [1])], [("t", STRING, [1])])


def test_a_model_with_one_input_and_one_output_takes_and_gives_bare_tensors() -> None:
    model = started(ocr.model_path("det"))
    expected = straight(page_like())
    np.testing.assert_array_equal(model.infer(page_like()), expected)
    np.testing.assert_array_equal(model.infer({"x": page_like()}), expected)


def test_a_model_with_several_outputs_gives_them_by_name_in_loans(add: Session) -> None:
    model = started(add.path)
    x = np.ones((1, 3), np.float32)
    results = model.infer({"x": x, "y": x})
    assert list(results) == ["sum", "difference"]
    assert {id(each) for each in results.values()} == {id(each) for each in model._binding.places.given}  # type: ignore[union-attr]


def test_describe_tells_names_types_shapes_and_metadata() -> None:
    described = started(ocr.model_path("rec")).describe()
    assert described["inputs"] == [
        {"name": "x", "dtype": "float32", "shape": ["p2o.DynamicDimension.0", 3, None, "p2o.DynamicDimension.1"]}
    ]
    assert [each["shape"][-1] for each in described["outputs"]] == [6625]
    assert len(ocr.alphabet(described["metadata"])) == 6625


def test_the_plans_cores_size_the_pool_unless_threads_says_otherwise() -> None:
    path = ocr.model_path("det")
    assert started(path, cores=(0, 1)).describe()["threads"] == 2
    assert started(path, cores=(0, 1), threads=1).describe()["threads"] == 1
    assert started(path, cores=()).describe()["threads"] == 1


def test_no_thread_but_the_callers_is_made_for_one() -> None:
    """Counted in a process of its own, where nobody else starts threads."""
    script = (
        "import os, sys\n"
        "from slabwire.actors.inference.session import Session\n"
        "threads = lambda: len(os.listdir('/proc/self/task'))\n"
        "import onnxruntime\n"
        "before = threads()\n"
        "session = Session(sys.argv[1], threads=int(sys.argv[2]))\n"
        "print(threads() - before)\n"
    )
    for threads, made in ((1, 0), (2, 1)):
        arguments = [sys.executable, "-c", script, ocr.model_path("det"), str(threads)]
        assert int(subprocess.run(arguments, check=True, capture_output=True).stdout) == made


def test_defining_a_graph_needs_no_onnx_runtime() -> None:
    script = "import sys; sys.modules['onnxruntime'] = None\nfrom slabwire.actors.inference import Model\n"
    subprocess.run([sys.executable, "-c", script], check=True)
    script += "from slabwire.actors.inference.session import Session\nSession('any.onnx')"
    result = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True, text=True)
    assert "pip install 'slabwire[inference]'" in result.stderr
