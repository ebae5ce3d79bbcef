"""A graph that can be run: in processes of its own, or in this one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, overload

from ..actor.user_code import is_loading
from ..errors import GraphError
from ..graph.definition import Definition
from ..host.variables import warn_of_unknown

if TYPE_CHECKING:
    from .in_process import AsyncRunningInProcess, RunningInProcess
    from .launch import Launch
    from .running import AsyncRunning, Running


class Graph(Definition):
    """A graph of actors. To be written at the top level of a module; only its author's thread may use it."""

    @overload
    def run(
        self,
        *,
        in_process: Literal[False] = False,
        name: str | None = None,
        drain_timeout_s: float = 10.0,
        listen: str | None = None,
        rebalance: bool = False,
    ) -> Launch[Running, AsyncRunning]: ...
    @overload
    def run(
        self, *, in_process: Literal[True], name: str | None = None, drain_timeout_s: float = 10.0
    ) -> Launch[RunningInProcess, AsyncRunningInProcess]: ...
    @overload
    def run(
        self, *, in_process: bool, name: str | None = None, drain_timeout_s: float = 10.0
    ) -> Launch[Running, AsyncRunning] | Launch[RunningInProcess, AsyncRunningInProcess]: ...
    def run(
        self,
        *,
        in_process: bool = False,
        name: str | None = None,
        drain_timeout_s: float = 10.0,
        listen: str | None = None,
        rebalance: bool = False,
    ) -> Launch[Running, AsyncRunning] | Launch[RunningInProcess, AsyncRunningInProcess]:
        """Runs the graph while a `with` (or `async with`) lasts: `with graph.run() as running:`.

        `in_process` runs all of it in this process, for a debugger or a profiler. `name` runs it under another name,
        `listen` also takes calls at a tcp:// address, `rebalance` moves workers off saturated cores. At the end inputs
        in flight get `drain_timeout_s` seconds to be answered; what is left then ends with Interrupted. Raises
        GraphError where the graph is not valid; entering raises StartError where it does not become ready.
        """
        if is_loading():
            raise GraphError(
                f"graph '{self.name}' is run while its module is being imported by a worker; "
                'put graph.run() under `if __name__ == "__main__":`'
            )
        if not isinstance(listen, str | None):
            raise GraphError(f"listen is {listen!r}; it must be one address, such as 'tcp://127.0.0.1:5555', or None")
        if in_process:
            if listen or rebalance:
                raise GraphError("listen= and rebalance= need a supervisor, which a graph in one process has not")
            from .in_process import launch_in_process

            spec = self._validated(travels=False)
            codes = {name: (draft.code, draft.arguments) for name, draft in self._drafts.items()}
            return launch_in_process(name or self.name, spec, codes, drain_timeout_s)
        spec = self.validate()
        warn_of_unknown()
        from .running import launch

        return launch(spec, name=name, drain_timeout_s=drain_timeout_s, listen=listen, rebalance=rebalance)
