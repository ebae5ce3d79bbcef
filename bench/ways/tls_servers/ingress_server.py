"""Ours, whole: an ingress, the keeper of its tickets' keys, its supervisor, and the model that it answers for, which is
asked for nothing here.
"""

from __future__ import annotations

import os
import signal
import time
from typing import ClassVar

from ....actors.ingress import TicketKeys
from ....actors.ingress.certificates.certificate import Certificate
from ....runtime.launch.graph import Graph
from ...harness.contestant import BenchError
from ...harness.load import Load
from ..served_streams.slabwire_ingress import SlabwireIngress

# Connections that there is room for: those that idle, and some.
_ROOM = Load(1024, 1.0)
_COMES_AGAIN_WITHIN_S = 30.0


class IngressServer(SlabwireIngress):
    name = "ingress"
    title = "Slabwire's ingress"
    serves_large: ClassVar[bool] = False
    pushes: ClassVar[bool] = False

    def __init__(self, certificate: Certificate, processes: int) -> None:
        super().__init__(_ROOM, certificate, processes)

    def _add_keys(self, graph: Graph) -> str:
        graph.add(TicketKeys, name="keys")
        return "keys"

    def all_pids(self) -> list[int]:
        return [pid for some in self.pids().values() for pid in some]

    def kill_each(self) -> None:
        """Kills every process that accepts connections, one after the other, each when its like before is back."""
        for pid in self.pids()["serving"]:
            os.kill(pid, signal.SIGKILL)
            until = time.monotonic() + _COMES_AGAIN_WITHIN_S
            while not self._is_whole_without(pid):
                if time.monotonic() > until:
                    raise BenchError(
                        f"no other ingress has come for one that was killed in {_COMES_AGAIN_WITHIN_S:g} s"
                    )
                time.sleep(0.05)

    def _is_whole_without(self, pid: int) -> bool:
        workers = self._running.status()["workers"]
        return all(each["state"] == "ready" and each["pid"] != pid for each in workers)
