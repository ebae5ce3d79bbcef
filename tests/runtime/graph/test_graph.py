"""Graphs as their authors write them: what is accepted, where calls end, and what errors say."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, TypedDict

import msgpack
import numpy as np
import pytest
from jaxtyping import Float32, UInt8

from slabwire.runtime.actor.actor import Actor, Output
from slabwire.runtime.errors import GraphError
from slabwire.runtime.launch.graph import Graph
from slabwire.runtime.spec import GraphSpec, graph_from_plain


class Scale(Actor):
    """Pixels to [0, 1]."""

    def __init__(self, factor: float = 1.0) -> None: ...

    def image(self, pixels: UInt8[np.ndarray, "h w 3"]) -> Float32[np.ndarray, "h w 3"]:
        raise NotImplementedError


class Blur(Actor):
    def soft(self, picture: Float32[np.ndarray, "h w 3"]) -> Float32[np.ndarray, "h w 3"]:
        raise NotImplementedError


class Grey(Actor):
    def plane(self, picture: UInt8[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w"]:
        raise NotImplementedError


class Split(Actor):
    page = Output(str)
    crop = Output(Float32[np.ndarray, "h w 3"])

    def file(self, path: str) -> None: ...

    def check(self, path: str) -> bool:
        raise NotImplementedError


class Join(Actor):
    def both(self, left: int, right: int) -> int:
        raise NotImplementedError

    def tick(self) -> None: ...


class Count(Actor):
    def upto(self, n: int) -> Iterator[int]:
        yield from range(n)


def total(n: int) -> int:
    return n


def echo(it: Any) -> Any:
    return it


def _routes(spec: GraphSpec) -> dict[str, str]:
    return {str(each.entry): str(each.reply) for each in spec.routes}


def _refused(act: Callable[[], object]) -> str:
    with pytest.raises(GraphError) as caught:
        act()
    return str(caught.value)


def test_specification_of_a_graph() -> None:
    graph = Graph("vision")
    scale = graph.add(Scale, name="big", factor=2.0, replicas=2, weight=4, restart="transient", worker="w")
    count = graph.add(Count, concurrency=3)
    graph.connect(scale.image, graph.add(Blur), capacity=3, when_full="reject")
    graph.expose(scale, count.upto)
    spec = graph.validate()
    assert [each.name for each in spec.actors] == ["big", "count", "blur"]
    big = spec.actor("big")
    assert (big.replicas, big.weight, big.restart, big.worker, big.summary) == (
        2,
        4,
        "transient",
        "w",
        "Pixels to [0, 1].",
    )
    assert [each.concurrency for each in spec.actors] == [1, 3, 1]
    assert [(str(each.source), str(each.target), each.capacity, each.when_full) for each in spec.edges] == [
        ("big.image", "blur.soft", 3, "reject")
    ]
    assert spec.exposed == 2
    assert _routes(spec) == {"big.image": "blur.soft", "count.upto": "count.upto", "blur.soft": "blur.soft"}
    assert graph_from_plain(msgpack.unpackb(msgpack.packb(spec.to_plain()))) == spec


def test_streams_have_64_inputs_in_flight() -> None:
    graph = Graph("g")
    graph.add(Count)
    assert graph.validate().actor("count").concurrency == 64


class TestWhereCallsEnd:
    def test_single_actor(self) -> None:
        graph = Graph("g")
        graph.expose(graph.add(total))
        assert _routes(graph.validate()) == {"total.total": "total.total"}

    def test_chain_and_fan_in(self) -> None:
        graph = Graph("g")
        first, left, right, last = (graph.add(echo, name=name) for name in "abcd")
        for source, target in ((first, left), (first, right), (left, last), (right, last)):
            graph.connect(source, target)
        graph.expose(first)
        assert set(_routes(graph.validate()).values()) == {"d.echo"}

    def test_declared_output_of_a_handler_without_a_result(self) -> None:
        class Page(Actor):
            page = Output(str)

            def file(self, path: str) -> None: ...

        graph = Graph("g")
        graph.expose(graph.add(Page))
        assert _routes(graph.validate()) == {"page.file": "page.page"}

    def test_unconnected_output_is_no_answer_of_a_handler_with_a_result(self) -> None:
        graph = Graph("g")
        split = graph.add(Split)
        graph.expose(split.check)
        spec = graph.validate()
        assert _routes(spec) == {"split.check": "split.check"}, "split.file has two sinks: no route"
        graph = Graph("g")
        split = graph.add(Split)
        graph.expose(split.check, reply=split.page)
        assert _routes(graph.validate())["split.check"] == "split.page"

    def test_several_sinks_need_a_reply(self) -> None:
        graph = Graph("g")
        split = graph.add(Split)
        blur = graph.add(Blur)
        graph.connect(split.crop, blur)
        graph.expose(split.file)
        assert "split.file is exposed, but its calls could end at split.page and blur.soft" in _refused(graph.validate)
        graph = Graph("g")
        split, blur = graph.add(Split), graph.add(Blur)
        graph.connect(split.crop, blur)
        graph.expose(split.file, split.check, reply=blur)
        assert _routes(graph.validate())["split.file"] == "blur.soft"

    def test_result_beside_a_connected_output(self) -> None:
        graph = Graph("g")
        split, blur = graph.add(Split), graph.add(Blur)
        graph.connect(split.crop, blur)
        graph.expose(split.check)
        assert "could end at split.check and blur.soft" in _refused(graph.validate)

    def test_circle_has_no_end(self) -> None:
        graph = Graph("g")
        ping, pong = graph.add(echo, name="ping"), graph.add(echo, name="pong")
        graph.connect(ping, pong)
        graph.connect(pong, ping, bounded=True)
        assert graph.validate().routes == ()
        graph.expose(ping)
        assert "no call of it would end" in _refused(graph.validate)

    def test_circle_with_a_way_out(self) -> None:
        class Loop(Actor):
            again = Output(int)
            done = Output(int)

            def step(self, n: int) -> None: ...

        graph = Graph("g")
        loop = graph.add(Loop)
        graph.connect(loop.again, loop.step, bounded=True)
        graph.expose(loop.step)
        assert _routes(graph.validate()) == {"loop.step": "loop.done"}

    def test_reply_must_be_an_end_of_the_call(self) -> None:
        graph = Graph("g")
        scale, blur, other = graph.add(Scale), graph.add(Blur), graph.add(total)
        graph.connect(scale, blur)
        graph.expose(scale, reply=scale.image)
        graph.expose(blur, reply=other)
        text = _refused(graph.validate)
        assert (
            "scale.image is exposed with reply=scale.image, which its calls do not end at; they end at blur.soft"
            in text
        )
        assert "blur.soft is exposed with reply=total.total" in text


class TestAdd:
    def test_unknown_argument(self) -> None:
        text = _refused(lambda: Graph("g").add(Scale, facto=1))
        assert text == (
            "actor 'scale' (Scale): there is no argument 'facto'; did you mean 'factor'?; "
            "its constructor takes (factor: float = 1.0)"
        )

    def test_missing_argument(self) -> None:
        class Model(Actor):
            def __init__(self, path: str) -> None: ...

            def run(self, x: int) -> int:
                raise NotImplementedError

        assert "actor 'model' (Model): missing a required argument: 'path'" in _refused(lambda: Graph("g").add(Model))

    def test_constructor_with_a_name_of_graph_add(self) -> None:
        class Model(Actor):
            def __init__(self, weight: int) -> None: ...

            def run(self, x: int) -> int:
                raise NotImplementedError

        assert "has a parameter 'weight', which graph.add keeps" in _refused(lambda: Graph("g").add(Model))

    def test_what_is_no_actor(self) -> None:
        wrong: Any
        for wrong in (int, Actor, 5, print):
            assert "takes a class derived from slabwire.Actor" in _refused(partial(Graph("g").add, wrong))
        assert "a function takes no arguments" in _refused(lambda: Graph("g").add(total, n=1))
        assert "has no handler" in _refused(lambda: Graph("g").add(type("Empty", (Actor,), {})))

    def test_names(self) -> None:
        graph = Graph("g")
        graph.add(Scale)
        assert "has an actor 'scale' already; give this one another with name=" in _refused(lambda: graph.add(Scale))
        for name in ("a.b", "-x", "--help", "-", "", "..", "a/b", "a%b", "a\n", "ü", "a" * 41):
            assert f"actor name {name!r} must consist of" in _refused(partial(graph.add, Scale, name=name))
        assert "a lambda has no name" in _refused(lambda: graph.add(lambda x: x))
        assert str(graph.add(lambda x: x, name="same").apply) == "same.apply"


class TestConnect:
    def test_typo_in_a_port(self) -> None:
        scale = Graph("g").add(Scale)
        assert _refused(lambda: scale.imge) == "actor 'scale' has no port 'imge'; did you mean 'image'?"
        assert _refused(lambda: scale.zzz) == "actor 'scale' has no port 'zzz'; it has image"
        assert not hasattr(scale, "zzz")

    def test_directions(self) -> None:
        graph = Graph("g")
        split, blur = graph.add(Split), graph.add(Blur)
        assert "split.crop is no input; the inputs of 'split' are split.file, split.check" in _refused(
            lambda: graph.connect(blur, split.crop)
        )
        assert "split.file is no output" in _refused(lambda: graph.connect(split.file, blur))
        assert "'split' has 3 outputs, so say which: split.check, split.page, split.crop" in _refused(
            lambda: graph.connect(split, blur)
        )
        assert "expected a node of this graph" in _refused(lambda: graph.connect("blur", blur))  # type: ignore[arg-type]

    def test_node_of_another_graph(self) -> None:
        graph, other = Graph("g"), Graph("h")
        graph.add(Scale)
        stranger = other.add(Scale)
        assert "actor 'scale' belongs to graph 'h', not to 'g'" in _refused(lambda: graph.expose(stranger.image))

    def test_twice(self) -> None:
        graph = Graph("g")
        scale, blur = graph.add(Scale), graph.add(Blur)
        graph.connect(scale, blur)
        assert "scale.image and blur.soft are connected already" in _refused(lambda: graph.connect(scale, blur))


class TestCircles:
    """Edges that all wait when they are full."""

    @staticmethod
    def ring(*policies: Any, bounded: int | None = None) -> Graph:
        graph = Graph("g")
        nodes = [graph.add(echo, name=name) for name in "abc"[: len(policies)]]
        for number, policy in enumerate(policies):
            target = nodes[(number + 1) % len(nodes)]
            graph.connect(nodes[number], target, when_full=policy, capacity=9, bounded=number == bounded)
        return graph

    def test_is_named_in_order_with_its_remedy(self) -> None:
        assert _refused(self.ring("block", "block", "block").validate) == (
            "a.echo → b.echo, b.echo → c.echo, c.echo → a.echo: these edges lead in a circle, and when all are full "
            "their actors wait for each other, for ever; give one of them, as c.echo → a.echo, when_full='reject', "
            "'drop_newest' or 'drop_oldest', or bounded=True if never more than its capacity (9) go round at once"
        )
        assert "a.echo → a.echo: this edge leads back to its own actor" in _refused(self.ring("block").validate)

    @pytest.mark.parametrize("policy", ["reject", "drop_newest", "drop_oldest"])
    def test_one_edge_that_does_not_wait_opens_it(self, policy: str) -> None:
        for place in range(3):
            self.ring(*(policy if each == place else "block" for each in range(3))).validate()

    def test_the_author_may_know_its_bound(self) -> None:
        for place in range(3):
            self.ring("block", "block", "block", bounded=place).validate()

    def test_it_is_actors_that_wait_whatever_the_ports(self) -> None:
        class Asks(Actor):
            question = Output(int)

            def ask(self, n: int) -> None: ...

            def hear(self, answer: int) -> None: ...

        graph = Graph("g")
        asks, answers = graph.add(Asks), graph.add(total)
        graph.connect(asks.question, answers)
        graph.connect(answers, asks.hear)
        assert "asks.question → total.total, total.total → asks.hear: these edges lead in a circle" in _refused(
            graph.validate
        )

    def test_each_is_told_once_and_what_hangs_on_it_is_none(self) -> None:
        graph = Graph("g")
        a, b, c, d, e = (graph.add(echo, name=name) for name in "abcde")
        for source, target in ((a, b), (b, c), (c, b), (c, d), (d, e), (e, d)):
            graph.connect(source, target)
        with pytest.raises(GraphError) as caught:
            graph.validate()
        assert [each.partition(":")[0] for each in caught.value.problems] == [
            "b.echo → c.echo, c.echo → b.echo",
            "d.echo → e.echo, e.echo → d.echo",
        ]


class TestFieldsAlongAnEdge:
    """Of a dataclass and of a TypedDict it is known which fields they bring."""

    @dataclass
    class Sides:
        left: int
        rihgt: int

    class Keys(TypedDict):
        left: int
        right: int
        more: str

    def refused(self, source: Any) -> str:
        def gives(n: int) -> None: ...

        gives.__annotations__["return"] = source
        graph = Graph("g")
        graph.connect(graph.add(gives), graph.add(Join).both)
        return _refused(graph.validate)

    def test_missing(self) -> None:
        assert self.refused(self.Sides) == (
            "gives.gives → join.both: gives.gives gives Sides, but join.both takes several fields (left, right): field "
            "'right' is missing; did you mean 'rihgt'?; add it, or give it a default there"
        )

    def test_unknown(self) -> None:
        assert "there is no field 'more'; add it there, or leave it out" in self.refused(self.Keys)

    def test_a_dict_of_unknown_keys_may_fit(self) -> None:
        def gives(n: int) -> dict[str, int]:
            raise NotImplementedError

        graph = Graph("g")
        graph.connect(graph.add(gives), graph.add(Join).both)
        graph.validate()


def test_all_problems_at_once() -> None:
    graph = Graph("no good")
    scale = graph.add(Scale, replicas=0, restart="permanently", cores=-1, hang_after_s=0)  # type: ignore[arg-type]
    grey, join = graph.add(Grey), graph.add(Join, worker="a b")
    graph.connect(scale, grey, capacity=0, when_full="drop")  # type: ignore[arg-type]
    graph.connect(scale, join.both)
    graph.connect(grey, join.tick)
    graph.expose(join.tick, join.tick)
    with pytest.raises(GraphError) as caught:
        graph.validate()
    problems = caught.value.problems
    expected = [
        "graph name 'no good' must consist of",
        "actor 'scale': replicas=0 must be a whole number of at least 1",
        "actor 'scale': cores=-1 must be a whole number of at least 0",
        "actor 'scale': hang_after_s=0 must be a number of seconds above 0",
        "actor 'scale': restart='permanently' must be one of permanent, transient, temporary; did you",
        "actor 'join': worker='a b' must be a name",
        "scale.image → grey.plane: capacity=0 must be a whole number from 1 to 65536",
        "scale.image → grey.plane: when_full='drop' must be one of block, reject, drop_newest, drop_oldest",
        "scale.image → grey.plane: scale.image gives Float32[h w 3], but grey.plane takes UInt8[h w]: dtype",
        "scale.image → join.both: scale.image gives Float32[h w 3], but join.both takes several fields",
        "grey.plane → join.tick: join.tick takes no fields, so nothing can be connected to it",
        "join.tick is exposed twice; once is enough",
    ]
    assert len(problems) == len(expected)
    for problem, start in zip(problems, expected, strict=True):
        assert problem.startswith(start)


def test_empty_graph() -> None:
    assert "graph 'g' has no actors" in _refused(Graph("g").validate)


def test_mermaid() -> None:
    graph = Graph("vision")
    scale, blur = graph.add(Scale, replicas=2), graph.add(Blur)
    graph.connect(scale, blur)
    graph.expose(scale)
    assert graph.mermaid().splitlines() == [
        "flowchart LR",
        '    a0["scale ×2<br/>Scale"]',
        '    a1["blur<br/>Blur"]',
        '    a0 -- "image → soft<br/>Float32[h w 3]" --> a1',
        "    client([client])",
        '    client -. "image" .-> a0',
    ]


def test_what_is_no_address_to_listen_at_is_said() -> None:
    several: Any = ["tcp://127.0.0.1:0"]
    with pytest.raises(GraphError, match=r"listen is .* one address"):
        Graph("g").run(listen=several)
