"""What a class or function says about its ports, and how messages become arguments."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from jaxtyping import Float32, UInt8

from slabwire.runtime.actor.actor import (
    Actor,
    FunctionActor,
    Output,
    batched,
    fields_of,
    handlers_of,
    ports_of,
    private,
    resumable,
)
from slabwire.runtime.actor.context import Context
from slabwire.runtime.actor.delegation import Delegation
from slabwire.runtime.actor.fields import CallFields
from slabwire.runtime.errors import GraphError, MessageError, SlabwireError, UnknownPort
from slabwire.shm.layout import Layout

PIXELS = np.zeros((4, 5, 3), np.uint8)


@dataclass
class Box:
    left: int
    right: int = 7
    corners: list[Corner] = field(default_factory=list)


@dataclass
class Corner:
    x: float


class Scale(Actor):
    def __init__(self, factor: float = 1.0) -> None:
        self.factor = factor

    def image(self, pixels: UInt8[np.ndarray, "h w 3"]) -> Float32[np.ndarray, "h w 3"]:
        """Pixels to numbers.

        More of it.
        """
        scaled: Float32[np.ndarray, "h w 3"] = np.multiply(pixels, self.factor, dtype=np.float32)
        return scaled

    def blend(self, one: UInt8[np.ndarray, "h w"], other: UInt8[np.ndarray, "h w"], weight: float = 0.5) -> None: ...

    def anything(self, it: Any) -> Any:
        return it

    def tick(self) -> None: ...

    def boxes(self, box: Box, more: list[Box] | None = None) -> int:
        return box.left

    def upto(self, n: int) -> Iterator[int]:
        yield from range(n)

    def returned(self, n: int) -> Iterator[int]:
        return iter(range(n))

    @resumable
    def on_and_on(self, n: int, sent: int = 0) -> Iterator[int]:
        yield from range(sent, n)

    @batched(max_size=4, max_wait_s=0.1)
    def recognise(self, crops: list[Box]) -> list[str]:
        return [str(each.left) for each in crops]

    async def slow(self, n: int) -> str:
        return str(n)

    async def slowly(self, n: int) -> AsyncIterator[int]:
        yield n

    @private
    def helper(self) -> None: ...

    @staticmethod
    def stateless(x: int) -> int:
        return x

    @property
    def size(self) -> int:
        return 1

    def _hidden(self) -> None: ...

    def on_start(self) -> None: ...


SPECS = Scale.__handlers__


def test_public_methods_are_handlers_in_order() -> None:
    names = "image blend anything tick boxes upto returned on_and_on recognise slow slowly"
    assert list(SPECS) == names.split()
    assert SPECS["image"].summary == "Pixels to numbers."


def test_kinds_and_results() -> None:
    kinds = {name: (spec.kind, spec.result.kind) for name, spec in SPECS.items()}
    assert kinds["image"] == ("plain", "tensor")
    assert kinds["upto"] == kinds["returned"] == kinds["on_and_on"] == ("generator", "int")
    assert kinds["slow"] == ("coroutine", "str")
    assert kinds["slowly"] == ("async_generator", "int")


def test_resumable_is_told_what_was_sent() -> None:
    spec = SPECS["on_and_on"]
    assert spec.resumable
    assert [each.name for each in spec.fields] == ["n"]
    handler = handlers_of(Scale())["on_and_on"]
    assert list(handler.function(**handler.bind(4, False), sent=2)) == [2, 3]


def test_batched_takes_one_element_a_message() -> None:
    spec = SPECS["recognise"]
    assert spec.batch is not None
    assert (spec.batch.max_size, spec.batch.max_wait_s) == (4, 0.1)
    assert (spec.fields[0].type.text, spec.result.kind) == ("Box", "str")
    handler = handlers_of(Scale())["recognise"]
    items = [handler.bind({"left": n}, False)["crops"] for n in range(3)]
    assert handler.function(**{str(handler.field): items}) == ["0", "1", "2"]


def test_outputs_and_handlers_without_a_result_of_their_own() -> None:
    class Split(Actor):
        page = Output(Float32[np.ndarray, "h w"])

        def file(self, path: str) -> None: ...

        def count(self, path: str) -> int:
            raise NotImplementedError

        def untyped(self, path: str): ...  # type: ignore[no-untyped-def]

    assert Split.__outputs__["page"].type.text == "Float32[h w]"
    assert [spec.replies for spec in Split.__handlers__.values()] == [False, True, True]
    assert Scale.__handlers__["tick"].replies, "without declared outputs None is an answer"


def test_bases_count_and_subclasses_override() -> None:
    class Mixin:
        def from_mixin(self) -> int:
            raise NotImplementedError

    class Base(Mixin, Actor):
        def one(self) -> int:
            raise NotImplementedError

        def two(self) -> int:
            raise NotImplementedError

    class Derived(Base):
        def one(self) -> str:  # type: ignore[override]
            raise NotImplementedError

        @private
        def two(self) -> int:
            raise NotImplementedError

    assert Base.__handlers__["one"].result.kind == "int"
    assert set(Derived.__handlers__) == {"from_mixin", "one"}
    assert Derived.__handlers__["one"].result.kind == "str"


@pytest.mark.parametrize(
    "name", ["loan", "loan_many", "emit", "send", "call", "stream", "keep", "listen", "context", "_binding"]
)
def test_name_that_actor_uses_is_refused_when_the_class_is_made(name: str) -> None:
    with pytest.raises(GraphError, match=f"Bad.{name}: Actor itself uses the name '{name}'"):
        type("Bad", (Actor,), {name: lambda self: None})
    with pytest.raises(GraphError, match="Actor itself uses"):
        type("Bad", (Actor,), {"__annotations__": {name: int}})


def _class_with(function: Any) -> None:
    type("Bad", (Actor,), {"handle": function})


def test_signatures_that_cannot_be_messages() -> None:
    with pytest.raises(GraphError, match=r"Bad.handle: '\*items' cannot be a field"):
        _class_with(lambda self, *items: None)
    with pytest.raises(GraphError, match=r"'\*\*options' cannot be a field"):
        _class_with(lambda self, **options: None)
    with pytest.raises(GraphError, match="'x' is positional-only"):
        _class_with(lambda self, x, /: None)
    with pytest.raises(GraphError, match="@resumable is for a stream"):
        _class_with(resumable(lambda self, n: None))
    with pytest.raises(GraphError, match="@batched is for"):
        _class_with(batched(lambda self, one, two: None))
    with pytest.raises(GraphError, match="max_size=0"):
        batched(max_size=0)


@pytest.mark.parametrize(
    ("port", "value", "is_fields", "message"),
    [
        ("image", {}, True, "scale.image: field 'pixels' is missing; it takes pixels: UInt8[h w 3]"),
        (
            "image",
            {"pixel": PIXELS, "pixels": PIXELS},
            True,
            "scale.image: there is no field 'pixel'; did you mean 'pixels'?; it takes pixels: UInt8[h w 3]",
        ),
        ("image", "page", False, "scale.image: field 'pixels': expected UInt8[h w 3], got str"),
        (
            "blend",
            {"one": PIXELS[..., 0], "other": PIXELS[:2, :, 0]},
            True,
            "scale.blend: field 'other': expected UInt8[h w] with h=4, w=5, got uint8 of shape (2, 5)",
        ),
        (
            "blend",
            7,
            False,
            "scale.blend: it takes one: UInt8[h w], other: UInt8[h w], weight: float (optional), but int came along",
        ),
        (
            "tick",
            7,
            False,
            "scale.tick: it takes no fields, but int came along an edge; nothing can be connected to it",
        ),
        ("boxes", {"box": {}}, True, "scale.boxes: field 'box': Box: field 'left' is missing"),
        ("boxes", {"box": {"lef": 1}}, True, "scale.boxes: field 'box': Box has no field 'lef'"),
        ("boxes", {"box": {"left": "1"}}, True, "scale.boxes: field 'box': Box.left: expected int, got str"),
        (
            "boxes",
            {"box": {"left": 1, "corners": [{"x": None}]}},
            True,
            "scale.boxes: field 'box': Corner.x: expected float, got None",
        ),
    ],
)
def test_bind_refuses(port: str, value: Any, is_fields: bool, message: str) -> None:
    with pytest.raises(MessageError) as caught:
        handlers_of(Scale(), "scale")[port].bind(value, is_fields)
    assert str(caught.value).startswith(message)


def test_bind_makes_arguments() -> None:
    handlers = handlers_of(Scale())
    assert handlers["image"].bind(PIXELS, False)["pixels"] is PIXELS
    assert handlers["anything"].bind({"it": 1}, False) == {"it": {"it": 1}}
    assert handlers["anything"].bind({"it": 1}, True) == {"it": 1}
    assert handlers["tick"].bind({}, True) == {}
    plane = PIXELS[..., 0]
    assert set(handlers["blend"].bind({"one": plane, "other": plane}, False)) == {"one", "other"}


def test_bind_rebuilds_dataclasses() -> None:
    bound = handlers_of(Scale())["boxes"].bind(
        {"box": {"left": 1, "corners": [{"x": 2}]}, "more": [{"left": 3}, {"left": 4, "right": 5}]}, True
    )
    assert bound == {"box": Box(1, 7, [Corner(2)]), "more": [Box(3), Box(4, 5)]}
    assert handlers_of(Scale())["boxes"].bind({"box": Box(1), "more": None}, True)["more"] is None


def test_plain_function_that_returns_an_iterator_streams() -> None:
    handler = handlers_of(Scale())["returned"]
    stream = handler.function(**handler.bind(2, False))
    assert next(stream) == 0
    stream.close()


def test_fields_of_maps_positions_to_names() -> None:
    plane = PIXELS[..., 0]
    assert list(fields_of(SPECS["blend"], "s", (plane, plane), {"weight": 1})) == ["one", "other", "weight"]
    with pytest.raises(MessageError, match=r"s.image: 2 positional values were given; it takes pixels"):
        fields_of(SPECS["image"], "s", (PIXELS, 1), {})
    with pytest.raises(MessageError, match="'pixels' was given twice"):
        fields_of(SPECS["image"], "s", (PIXELS,), {"pixels": PIXELS})
    with pytest.raises(MessageError, match="field 'n': expected int, got str"):
        fields_of(SPECS["upto"], "s", ("5",), {})


def test_intake_is_fields_of_for_one_port() -> None:
    intake = CallFields(SPECS["upto"], "s")
    assert intake.fields((5,), {}) == intake.fields((), {"n": 5}) == {"n": 5}
    with pytest.raises(MessageError, match=r"s\.upto: field 'n': expected int, got None"):
        intake.fields((None,), {})
    with pytest.raises(MessageError, match=r"s\.upto: field 'n' is missing"):
        intake.fields((), {})


class _Binding:
    outputs = frozenset({"page"})

    def __init__(self) -> None:
        self.done: list[Any] = []

    def loan(self, shape: Any, dtype: Any) -> Any:
        return np.zeros(shape, dtype)

    def loan_many(self, tensors: Any) -> Any:
        return [self.loan(*each) for each in tensors]

    def emit(self, port: str, value: Any) -> None:
        self.done.append((port, value))

    async def send(self, port: str, value: Any) -> None:
        self.done.append((port, value, "in time"))

    async def call(self, target: str, args: Any, fields: Any, timeout_s: float | None) -> Any:
        return target, args, fields, timeout_s

    async def stream(self, target: str, args: Any, fields: Any, timeout_s: float | None) -> AsyncGenerator[Any, None]:
        yield target, args, fields, timeout_s

    def reply_stream(self) -> Any:
        return "stream"

    def publish(self, items: Any, ended: Any) -> None:
        self.done.append((*items, *ended))

    def streams(self, on_items: Any) -> Any:
        return on_items

    def delegate(
        self, target: str, args: Any, fields: Any, report: str | None, about: Any, report_nbytes: int
    ) -> Delegation:
        self.done.append((target, args, fields, report, about, report_nbytes))
        return Delegation(target, 0, fields)

    def keep(self, name: str, layout: Layout, parameters: Any) -> Any:
        return name, layout.name, parameters

    def listen(self, address: str, replica: int | None) -> Any:
        return address, replica

    @property
    def context(self) -> Context:
        return Context(1, 1, "trace", "split", (0,), deadline_s=10.0)


class Split(Actor):
    page = Output(int)

    async def both(self, n: int) -> Any:
        self.emit("page", n)
        await self.send("page", n + 1)
        return [await self.call("a.b", n, timeout_s=1, x=2), [each async for each in self.stream("c.d", y=3)]]


def test_verbs_go_to_the_binding() -> None:
    actor, binding = Split(), _Binding()
    actor._binding = binding
    answer = asyncio.run(actor.both(5))
    assert binding.done == [("page", 5), ("page", 6, "in time")]
    assert answer == [("a.b", (5,), {"x": 2}, 1), [("c.d", (), {"y": 3}, None)]]
    assert actor.loan((2,), np.int8).shape == (2,)
    assert actor.streams(print) is print  # type: ignore[comparison-overlap]
    stream = actor.reply_stream()
    actor.publish([(stream, 1)], ended=[stream])
    assert binding.done[-1] == (("stream", 1), "stream")
    assert [each.shape for each in actor.loan_many(((2,), np.int8), (3, np.int8))] == [(2,), (3,)]
    assert actor.delegate("a.b", 5, report="both", about=6, x=2).fields == {"x": 2}
    assert binding.done[-1:] == [("a.b", (5,), {"x": 2}, "both", 6, 1 << 20)]
    verbs: Any = actor
    assert verbs.keep("keys", Layout("test keys"), rows=2) == ("keys", "test keys", {"rows": 2})
    assert verbs.listen("tcp://[::1]:0") == ("tcp://[::1]:0", None)
    assert verbs.listen("tcp://[::1]:0", replica=1) == ("tcp://[::1]:0", 1)
    with pytest.raises(UnknownPort, match="no output 'pages'; did you mean 'page'"):
        actor.emit("pages", 1)


def test_time_left() -> None:
    context = _Binding().context
    assert context.time_left_s(7.0) == 3.0
    assert context.time_left_s(11.0) == 0.0


def test_verbs_outside_a_graph() -> None:
    with pytest.raises(SlabwireError, match=r"Split\.loan may only be used inside a running graph"):
        Split().loan(1, np.int8)
    with pytest.raises(SlabwireError, match="running graph"):
        Split().context  # noqa: B018


def test_function_is_an_actor() -> None:
    def halve(n: int) -> float:
        """Half of it."""
        return n / 2

    handlers, outputs = ports_of(halve)
    assert [each.port for each in handlers] == ["halve"]
    assert outputs == ()
    handler = handlers_of(FunctionActor(halve), "half")["halve"]
    assert handler.function(**handler.bind(3, False)) == 1.5
    with pytest.raises(MessageError, match=r"half\.halve: field 'n'"):
        handler.bind("3", False)
    assert ports_of(lambda x: x)[0][0].port == "apply"
