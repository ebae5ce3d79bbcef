"""What a worker lends to an actor: the other side of the actor's verbs."""

from __future__ import annotations

import socket
from collections.abc import AsyncGenerator, Iterable, Mapping
from typing import Any, Protocol

from numpy.typing import DTypeLike, NDArray

from ...shm.layout import Layout
from .context import Context
from .delegation import Delegation
from .kept import Kept
from .reply_stream import ReplyStream
from .stream_group import OnItems, StreamGroup

Shape = int | tuple[int, ...]


class Binding(Protocol):
    """What the worker lends to an actor; set as `actor._binding` before `on_start`. `outputs` are the declared ones."""

    outputs: frozenset[str]

    def loan(self, shape: Shape, dtype: DTypeLike) -> NDArray[Any]: ...

    def loan_many(self, tensors: tuple[tuple[Shape, DTypeLike], ...]) -> list[NDArray[Any]]: ...

    def emit(self, port: str, value: Any) -> None: ...

    async def send(self, port: str, value: Any) -> None: ...

    async def call(
        self, target: str, args: tuple[Any, ...], fields: dict[str, Any], timeout_s: float | None
    ) -> Any: ...

    def stream(
        self, target: str, args: tuple[Any, ...], fields: dict[str, Any], timeout_s: float | None
    ) -> AsyncGenerator[Any, None]: ...

    def reply_stream(self) -> ReplyStream[Any]: ...

    def publish(self, items: Iterable[tuple[ReplyStream[Any], Any]], ended: Iterable[ReplyStream[Any]]) -> None: ...

    def streams(self, on_items: OnItems | None) -> StreamGroup: ...

    def delegate(
        self,
        target: str,
        args: tuple[Any, ...],
        fields: dict[str, Any],
        report: str | None,
        about: Any,
        report_nbytes: int,
    ) -> Delegation: ...
    def keep(self, name: str, layout: Layout, parameters: Mapping[str, int]) -> Kept: ...

    def listen(self, address: str, replica: int | None) -> socket.socket: ...

    @property
    def context(self) -> Context: ...
