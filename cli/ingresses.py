"""Asks the ingresses of a running graph how they fare."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from ..runtime.control.verbs import Hello
from ..runtime.errors import SlabwireError

if TYPE_CHECKING:
    from ..runtime.clients.client import Client
    from ..runtime.clients.control import Control

# The module and the class: users may have an Ingress of their own.
_INGRESS, _PORT = ("slabwire.actors.ingress.ingress", "Ingress"), "describe"
# Whoever looks at a graph that hangs is to see that soon.
_ANSWER_WITHIN_S = 1.0
_SHOWN = ("replicas", "ways", "handshaken")


class Ingresses:
    """Of one graph, as a client of it; without an ingress that may be asked it is none. One thread; close it."""

    def __init__(self, control: Control) -> None:
        spec = control.request(Hello())["spec"]
        exposed = [each["entry"] for each in spec["routes"][: spec["exposed"]]]
        self._graph = control.name
        self._may_be_asked = {
            each["name"]: {"actor": each["name"], "port": _PORT} in exposed
            for each in spec["actors"]
            if (each["code"]["origin"], each["code"]["qualname"]) == _INGRESS
        }
        self._client: Client | None = None

    def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            with suppress(SlabwireError):
                client.close()

    def look(self) -> list[dict[str, Any]]:
        """{"actor", "unknown", "replicas", "ways", "handshaken"} of each, as `Ingress.describe` has the last three;
        "unknown" says why they are empty, and else nothing. Any of the replicas answers for all.
        """
        return [{"actor": name, **self._told(name)} for name in self._may_be_asked]

    def _told(self, name: str) -> dict[str, Any]:
        unknown: dict[str, Any] = dict.fromkeys(_SHOWN, ())
        if not self._may_be_asked[name]:
            return {**unknown, "unknown": f"graph.expose({name}.{_PORT}) lets it be asked"}
        try:
            told = self._connected().call(f"{name}.{_PORT}", timeout_s=_ANSWER_WITHIN_S)
        except SlabwireError as error:
            self.close()
            return {**unknown, "unknown": str(error)}
        if not isinstance(told, dict) or not told.keys() >= set(_SHOWN):
            return {**unknown, "unknown": "it answers otherwise than this version of slabwire"}
        return {"unknown": "", **{each: told[each] for each in _SHOWN}}

    def _connected(self) -> Client:
        from ..runtime.clients.client import Client

        if self._client is None:
            self._client = Client(self._graph, None)
        return self._client
