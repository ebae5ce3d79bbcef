"""Graphs and machines for plans, and what holds of every plan."""

from __future__ import annotations

from collections import Counter

from hypothesis import strategies as st

from slabwire.runtime.host.topology import Core, Topology
from slabwire.runtime.placement.plan import Plan
from slabwire.runtime.spec import ActorSpec, CodeSpec, EdgeSpec, GraphSpec, PortRef

CODE = CodeSpec("module", "somewhere", "Thing")


def actor(name: str, cores: int = 0, replicas: int = 1, worker: str | None = None, weight: int = 1) -> ActorSpec:
    return ActorSpec(name, CODE, (), replicas=replicas, cores=cores, worker=worker, weight=weight)


def graph(*actors: ActorSpec, edges: str = "") -> GraphSpec:
    """`edges` is written "a>b b>c"."""
    pairs = [each.split(">") for each in edges.split()]
    return GraphSpec("g", actors, tuple(EdgeSpec(PortRef(one, "x"), PortRef(other, "y")) for one, other in pairs))


def machine(
    cores: int, *, threads: int = 1, per_l3: int = 8, per_node: int = 64, quota: float | None = None
) -> Topology:
    return Topology(
        tuple(
            Core(
                number,
                tuple(number + cores * thread for thread in range(threads)),
                l2=number,
                l3=number // per_l3 * per_l3,
                node=number // per_node,
            )
            for number in range(cores)
        ),
        quota,
    )


machines = st.builds(
    machine,
    cores=st.integers(1, 24),
    threads=st.integers(1, 2),
    per_l3=st.sampled_from([2, 4, 8]),
    per_node=st.sampled_from([4, 8, 32]),
    quota=st.none() | st.floats(0.1, 32, allow_nan=False),
)


@st.composite
def graphs(draw: st.DrawFn) -> GraphSpec:
    names = [f"actor{index}" for index in range(draw(st.integers(1, 10)))]
    actors = [
        actor(
            name,
            draw(st.sampled_from([0, 0, 0, 1, 2, 5])),
            draw(st.integers(1, 3)),
            draw(st.sampled_from([None, None, None, "w"])),
            draw(st.integers(1, 8)),
        )
        for name in names
    ]
    pairs = draw(st.lists(st.tuples(st.sampled_from(names), st.sampled_from(names)), max_size=12))
    return graph(*actors, edges=" ".join(f"{one}>{other}" for one, other in pairs))


def check_instances(spec: GraphSpec, result: Plan) -> None:
    """Every instance is in exactly one worker, and workers have different names."""
    placed = Counter(instance for worker in result.workers for instance in worker.instances)
    assert placed == Counter(instance for each in spec.actors for instance in each.instances())
    assert len({worker.name for worker in result.workers}) == len(result.workers)
    assert all(worker.reason for worker in result.workers)


def check_cores(result: Plan, topology: Topology) -> None:
    """Only allowed CPUs, at least one each, and no more cores than the quota can use."""
    home = {cpu: core.number for core in topology.cores for cpu in core.cpus}
    used = {home[cpu] for worker in result.workers for cpu in worker.cores}
    assert len(used) <= topology.usable_cores
    for worker in result.workers:
        assert worker.cores
        assert 1 <= worker.threads <= len({home[cpu] for cpu in worker.cores})


def check_sharing(spec: GraphSpec, result: Plan, topology: Topology) -> None:
    """Nobody shares a core while one is free; whoever asks gets cores of his own where there are enough."""
    home = {cpu: core.number for core in topology.cores for cpu in core.cpus}
    on_core = Counter(core for worker in result.workers for core in {home[cpu] for cpu in worker.cores})
    if len(on_core) < topology.usable_cores:
        assert max(on_core.values()) == 1
    asked = {worker.name: asked_by(spec, worker.instances) for worker in result.workers}
    light = [name for name, cores in asked.items() if not cores]
    if sum(asked.values()) > topology.whole_cores:
        return
    for worker in result.workers:
        if asked[worker.name]:
            assert worker.threads == asked[worker.name]
            if not light or sum(asked.values()) < topology.usable_cores:
                assert all(on_core[home[cpu]] == 1 for cpu in worker.cores)


def asked_by(spec: GraphSpec, instances: tuple[str, ...]) -> int:
    return max(spec.actor(instance.partition("[")[0]).cores for instance in instances)


def check_spinning(result: Plan, topology: Topology) -> None:
    on_cpu = Counter(cpu for worker in result.workers for cpu in worker.cores)
    for worker in result.workers:
        alone = all(on_cpu[cpu] == 1 for cpu in worker.cores)
        assert alone or not worker.spin
        if topology.quota is None:
            assert worker.spin == alone
