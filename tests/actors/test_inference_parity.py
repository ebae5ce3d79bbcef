"""Whatever ONNX Runtime answers, the actor answers: models of every shape that exporters make, run both ways."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

from slabwire import Graph
from slabwire.actors.inference import Model
from slabwire.actors.inference.session import Session
from slabwire.actors.inference.shapeless import shapeless
from slabwire.actors.inference.signature import ModelError
from slabwire.runtime.errors import MessageError

FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
Feeds = dict[str, NDArray[Any]]
OLD = b"secret of another caller"


def value(name: str, kind: int, shape: Sequence[int | str] | None) -> onnx.ValueInfoProto:
    """One that says no shape at all where that is None."""
    made = onnx.ValueInfoProto(name=name)
    made.type.tensor_type.elem_type = kind
    return made if shape is None else helper.make_tensor_value_info(name, kind, shape)


def save(
    folder: Path, nodes: list[Any], inputs: list[Any], outputs: list[Any], initializer: Sequence[Any] = ()
) -> Path:
    graph = helper.make_graph(nodes, "parity", inputs, outputs, initializer=list(initializer))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    path = folder / "parity.onnx"
    onnx.save(model, str(path))
    return path


def node(operation: str, inputs: list[str], *outputs: str, **attributes: Any) -> Any:
    return helper.make_node(operation, inputs, list(outputs), **attributes)


def used(shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """A place as a block of shared memory is one: with what somebody has left there."""
    count = int(np.prod(shape))
    old = (OLD * (count * dtype.itemsize // len(OLD) + 1))[: count * dtype.itemsize]
    return np.frombuffer(bytearray(old), np.uint8).view(dtype).reshape(shape)


def alike(path: Path, several: Sequence[Feeds]) -> Session:
    """Runs each of them, in this order and over again, by both; ONNX Runtime's own `run` is right."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    straight = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [each.name for each in straight.get_outputs()]
    session = Session(path)
    for feeds in itertools.chain(several, several, reversed(several)):
        before = {name: each.copy() for name, each in feeds.items()}
        got = session.run(feeds, used)
        for name, right in zip(names, straight.run(None, feeds), strict=True):
            assert (got[name].shape, got[name].dtype) == (right.shape, right.dtype), name
            assert got[name].tobytes() == right.tobytes(), name
        assert all(np.array_equal(feeds[name], each) for name, each in before.items())
    return session


def floats(*shape: int) -> NDArray[np.float32]:
    return np.arange(1, 1 + int(np.prod(shape)), dtype=np.float32).reshape(shape)


def test_an_output_that_is_an_input_is_that_input(tmp_path: Path) -> None:
    mask = value("mask", INT64, ["n"])
    path = save(tmp_path, [node("Abs", ["x"], "y")], [value("x", FLOAT, ["n"]), mask], [value("y", FLOAT, ["n"]), mask])
    alike(path, [{"x": floats(n), "mask": np.arange(n) % 2} for n in (1, 4, 200, 0)])


def test_all_outputs_may_be_inputs_in_another_order_and_of_fixed_shapes(tmp_path: Path) -> None:
    ports = [value("a", FLOAT, [3]), value("b", BOOL, ["n", 2]), value("c", TensorProto.FLOAT16, [])]
    feeds = {"a": floats(3), "b": np.array([[True, False]]), "c": np.array(2.5, np.float16)}
    alike(save(tmp_path, [node("Abs", ["a"], "d")], ports, [*reversed(ports), value("d", FLOAT, [3])]), [feeds])


def test_outputs_that_are_one_another_or_weights_or_constants_are_all_there(tmp_path: Path) -> None:
    constant = node("Constant", [], "k", value=helper.make_tensor("k", INT64, [2], [7, 8]))
    nodes = [constant, node("Abs", ["x"], "t"), node("Identity", ["t"], "u"), node("Identity", ["x"], "v")]
    outputs = [value(name, FLOAT, ["n"]) for name in ("t", "u", "v")]
    weight = helper.make_tensor("w", FLOAT, [3], [1, 2, 3])
    outputs += [value("w", FLOAT, [3]), value("k", INT64, [2])]
    alike(save(tmp_path, nodes, [value("x", FLOAT, ["n"])], outputs, [weight]), [{"x": floats(5)}, {"x": floats(1)}])


def test_an_input_that_is_also_a_weight_may_be_answered(tmp_path: Path) -> None:
    """The form of files before IR version 4: weights stand among the inputs, as defaults of them."""
    weight = helper.make_tensor("w", FLOAT, [2], [1, 2])
    ports = [value("x", FLOAT, [2]), value("w", FLOAT, [2])]
    path = save(tmp_path, [node("Add", ["x", "w"], "y")], ports, [value("y", FLOAT, [2]), ports[1]], [weight])
    alike(path, [{"x": floats(2)}])


def test_the_same_array_may_be_two_inputs_and_both_outputs(tmp_path: Path) -> None:
    ports = [value("x", FLOAT, ["n"]), value("z", FLOAT, ["n"])]
    x = floats(6)
    alike(save(tmp_path, [node("Add", ["x", "z"], "s")], ports, [value("s", FLOAT, ["n"]), *ports]), [{"x": x, "z": x}])


def test_an_output_may_be_listed_twice(tmp_path: Path) -> None:
    ports = [value("x", FLOAT, ["n"])]
    path = save(tmp_path, [node("Abs", ["x"], "y")], ports, [value("y", FLOAT, ["n"])] * 2 + ports * 2)
    alike(path, [{"x": floats(3)}, {"x": floats(4)}])


def test_an_input_may_lie_anyhow(tmp_path: Path) -> None:
    ports = [value("x", FLOAT, ["a", "b"])]
    path = save(tmp_path, [node("Abs", ["x"], "y")], ports, [value("y", FLOAT, ["a", "b"]), *ports])
    unaligned = np.frombuffer(b"\0" + floats(2, 3).tobytes(), np.uint8)[1:].view(np.float32).reshape(2, 3)
    frozen = floats(2, 3)
    frozen.flags.writeable = False
    forms = [unaligned, frozen, floats(3, 2).T, floats(4, 3)[::-2], np.broadcast_to(floats(3), (2, 3)), floats(0, 3)]
    alike(path, [{"x": each} for each in forms])


@pytest.mark.parametrize("declared", [["n"], ["m"], ["n", "k"], None], ids=["wrong size", "open", "wrong rank", "none"])
def test_an_output_has_the_shape_that_it_has_and_not_the_one_declared(tmp_path: Path, declared: Any) -> None:
    nodes = [node("NonZero", ["x"], "found"), node("Squeeze", ["found"], "where")]
    path = save(tmp_path, nodes, [value("x", FLOAT, ["n"])], [value("where", INT64, declared)])
    alike(path, [{"x": np.array(each, np.float32)} for each in ([0, 1, 2], [0, 0, 0], [1, 1, 1], [0, 0, 1])])


@pytest.mark.parametrize("operation", ["Reshape", "Expand"])
def test_one_element_keeps_its_axes_though_they_follow_the_values(tmp_path: Path, operation: str) -> None:
    ports = [value("x", FLOAT, ["n"]), value("shape", INT64, ["r"])]
    path = save(tmp_path, [node(operation, ["x", "shape"], "y")], ports, [value("y", FLOAT, None)])
    shapes = [[1, 1], [1], [1, 1, 1], [1, 1]]
    alike(path, [{"x": floats(1), "shape": np.array(each, np.int64)} for each in shapes])


def test_several_elements_get_the_shape_that_the_values_say(tmp_path: Path) -> None:
    ports = [value("x", FLOAT, ["n"]), value("shape", INT64, ["r"])]
    path = save(tmp_path, [node("Reshape", ["x", "shape"], "y")], ports, [value("y", FLOAT, None)])
    alike(path, [{"x": floats(6), "shape": np.array(each, np.int64)} for each in ([2, 3], [3, 2], [1, 6], [6, 1])])


def test_a_branch_may_hand_its_input_on(tmp_path: Path) -> None:
    then = helper.make_graph([node("Identity", ["x"], "a")], "then", [], [value("a", FLOAT, None)])
    otherwise = helper.make_graph([node("Reshape", ["x", "s"], "b")], "else", [], [value("b", FLOAT, None)])
    choice = node("If", ["c"], "y", then_branch=then, else_branch=otherwise)
    ports = [value("c", BOOL, []), value("x", FLOAT, ["n"]), value("s", INT64, ["r"])]
    path = save(tmp_path, [choice], ports, [value("y", FLOAT, None), ports[1]])
    alike(path, [{"c": np.array(c), "x": floats(6), "s": np.array([2, 3], np.int64)} for c in (True, False, True)])


@pytest.mark.parametrize("times", [0, 1, 3])
def test_a_loop_may_turn_not_at_all(tmp_path: Path, times: int) -> None:
    """Then what it gives is what it was given, and the rows that it would have gathered are none."""
    body = helper.make_graph(
        [node("Identity", ["on"], "still"), node("Add", ["kept", "kept"], "next"), node("Identity", ["kept"], "row")],
        "body",
        [value("turn", INT64, []), value("on", BOOL, []), value("kept", FLOAT, ["n"])],
        [value("still", BOOL, []), value("next", FLOAT, ["n"]), value("row", FLOAT, ["n"])],
    )
    ports = [value("times", INT64, []), value("x", FLOAT, ["n"])]
    path = save(
        tmp_path,
        [node("Loop", ["times", "", "x"], "last", "rows", body=body)],
        ports,
        [value("last", FLOAT, ["n"]), value("rows", FLOAT, ["t", "n"]), ports[1]],
    )
    alike(path, [{"times": np.array(each), "x": floats(4)} for each in (times, 2, times)])


def test_an_input_of_unknown_rank_takes_any(tmp_path: Path) -> None:
    path = save(tmp_path, [node("Abs", ["x"], "y")], [value("x", FLOAT, None)], [value("y", FLOAT, None)])
    session = alike(path, [{"x": np.asarray(-floats(*shape))} for shape in ((), (1,), (1, 1), (2, 3), (0, 2))])
    assert (session.inputs[0].shape, session.outputs[0].shape) == (None, None)
    with pytest.raises(MessageError, match=r"expected float32\[\.\.\.\], got dtype float64"):
        session.run(np.ones(3))


def test_a_scalar_is_still_told_from_an_unknown_rank(tmp_path: Path) -> None:
    ports = [value("x", FLOAT, ["n"]), value("rate", FLOAT, [])]
    session = Session(save(tmp_path, [node("Mul", ["x", "rate"], "y")], ports, [value("y", FLOAT, ["n"])]))
    assert [each.shape for each in session.inputs] == [("n",), ()]
    with pytest.raises(MessageError, match=r"input rate: expected float32\[\], got 1 axes"):
        session.run({"x": floats(2), "rate": floats(1)})


def test_describe_says_where_a_shape_is_unknown(tmp_path: Path) -> None:
    model = Model(str(save(tmp_path, [node("Abs", ["x"], "y")], [value("x", FLOAT, None)], [value("y", FLOAT, [])])))
    model.session = Session(model.path)
    described = model.describe()
    assert described["inputs"] == [{"name": "x", "dtype": "float32", "shape": None}]
    assert described["outputs"] == [{"name": "y", "dtype": "float32", "shape": []}]


@pytest.mark.parametrize("content", [b"ORTM\0\0\0\0", b"\x3a\xff\xff\xff\xff\x0f", b"\xff" * 40, b"\x3a\x02\x5b\x5b"])
def test_of_a_file_in_another_format_nobody_says_what_has_a_shape(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "other.ort"
    path.write_bytes(content)
    assert shapeless(path) is None


def test_a_model_in_the_format_of_onnx_runtime_itself_takes_any_rank_where_it_cannot_tell(tmp_path: Path) -> None:
    path = save(tmp_path, [node("Abs", ["x"], "y")], [value("x", FLOAT, None)], [value("y", FLOAT, None)])
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "parity.ort")
    options.add_session_config_entry("session.save_model_format", "ORT")
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    session = Session(options.optimized_model_filepath)
    assert session.run(-floats(2, 2))["y"].tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize("name", ["bfloat16", "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz"])
def test_small_floats_come_and_go_as_those_of_ml_dtypes(tmp_path: Path, name: str) -> None:
    """`InferenceSession.run` itself cannot name them in numpy; Cast says what they are."""
    kind = getattr(TensorProto, {"bfloat16": "BFLOAT16"}.get(name, name.replace("float8_", "float8").upper()))
    ports = [value("x", FLOAT, ["n"]), value("same", kind, ["n"])]
    nodes = [node("Cast", ["x"], "small", to=kind), node("Cast", ["same"], "large", to=FLOAT)]
    outputs = [value("small", kind, ["n"]), value("large", FLOAT, ["n"]), ports[1]]
    graph = helper.make_graph(nodes, "small", ports, outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)])
    model.ir_version = 9
    path = tmp_path / "small.onnx"
    onnx.save(model, str(path))
    session, dtype = Session(path), np.dtype(getattr(ml_dtypes, name))
    for n in (3, 3, 1):
        x = floats(n) / 2
        got = session.run({"x": x, "same": x.astype(dtype)}, lambda shape, kind: np.zeros(shape, kind))
        assert [each.dtype for each in got.values()] == [dtype, np.float32, dtype]
        assert all(each.astype(np.float32).tolist() == x.tolist() for each in got.values())
    with pytest.raises(MessageError, match=rf"expected {name}\[n\], got dtype float32; .*ml_dtypes\.{name}"):
        session.run({"x": x, "same": x})


def test_what_the_actor_does_not_take_is_said_to_be_that(tmp_path: Path) -> None:
    nodes = [node("SequenceConstruct", ["x"], "y")]
    sequence = helper.make_tensor_sequence_value_info("y", FLOAT, ["n"])
    with pytest.raises(ModelError, match=r"'y' is a seq\(tensor\(float\)\), which this actor neither takes nor gives"):
        Session(save(tmp_path, nodes, [value("x", FLOAT, ["n"])], [sequence]))


def test_nobody_gets_what_a_caller_before_had(tmp_path: Path) -> None:
    """Through the graph, with the blocks that others have used."""
    mask = value("mask", INT64, ["n"])
    outputs = [value("y", TensorProto.DOUBLE, ["n"]), mask, value("z", TensorProto.BFLOAT16, None)]
    ports = [value("x", TensorProto.DOUBLE, ["n"]), mask, value("z", TensorProto.BFLOAT16, None)]
    path = save(tmp_path, [node("Abs", ["x"], "y")], ports, outputs)
    graph = Graph("parity")
    graph.expose(graph.add(Model, name="model", path=str(path), replicas=2).infer)
    n = 200
    feeds = {"x": np.full(n, -7.0), "mask": np.arange(n) % 2, "z": floats(10, 20).astype(ml_dtypes.bfloat16)}
    with graph.run() as running:
        secret = np.frombuffer((OLD * n)[: 8 * n], np.float64)
        for _ in range(6):
            got = running.client.call("model.infer", {**feeds, "x": secret})
            assert np.array_equal(got["y"], np.abs(secret))
            del got
            got = running.client.call("model.infer", feeds)
            assert got["y"].tolist() == [7.0] * n
            assert got["mask"].tolist() == feeds["mask"].tolist()
            assert got["z"].dtype == ml_dtypes.bfloat16
            assert got["z"].tobytes() == feeds["z"].tobytes()
            del got
