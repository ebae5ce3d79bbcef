"""Whether the models answer, asked of their actors, and whether the supervisor does."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any

from ....runtime.error_text import described
from ....runtime.errors import SlabwireError
from ....runtime.message.capacities import MOST_ASIDE
from ..counts.roster import Roster, Stage
from ..requests.serving import Ask, ServingState
from ..requests.together import all_of
from .supervisor import Supervisor

# Time for an actor to describe its model. It does so between two steps, and work of a second or two may come before.
_ANSWER_S = 3.0
# A model that has answered so recently is well, however long it takes to answer again. So probes are answered at once
# under load, and a frozen model is found out after this and `_ANSWER_S` at the latest.
_FRESH_S = 3.0


class Readiness:
    """Asks each model's actor to describe it, and the supervisor whether it is there.

    It answers for all replicas of the ingress: as long as one of them serves, who connects is served, at once or when
    the one that the kernel has chosen is there again. Those who look at the same time share one
    look. `clock` gives seconds.
    """

    def __init__(
        self,
        ask: Ask,
        models: Mapping[str, str],
        state: ServingState,
        roster: Roster,
        clock: Callable[[], float] = time.monotonic,
        supervisor: Supervisor | None = None,
    ) -> None:
        self.created: dict[str, int] = {}  # when a model's file was made, in seconds since 1970, once it is known
        self.described: dict[str, Mapping[str, Any]] = {}  # by model, of those that answered when last asked
        self._ask = ask
        self._models = models
        self._state = state
        self._roster = roster
        self._clock = clock
        self._supervisor = supervisor
        self._supervisor_answered = -_FRESH_S  # when, if it did when last asked
        self._places = asyncio.Semaphore(MOST_ASIDE)
        self._answered: dict[str, float] = {}  # when; of those that did when last asked
        self._looking: asyncio.Task[list[str]] | None = None

    @property
    def started(self) -> bool:
        """Whether every model has answered once."""
        return self.created.keys() == self._models.keys()

    async def reasons(self) -> list[str]:
        """Why requests would fail now, each reason naming the actor; none where they would not."""
        looking = self._look_on()
        # Shielded: one who stops looking must not blind the others.
        reasons = [] if self._all_fresh() else await asyncio.shield(looking)
        return self._departure() + reasons

    @property
    def replicas(self) -> dict[str, int]:
        """How many replicas do what; what none does is not named."""
        stages = [each.stage for each in self._roster.see()]
        return {stage.name.lower(): stages.count(stage) for stage in Stage if stage in stages}

    def _departure(self) -> list[str]:
        """Why nobody is let in any more; nothing while some replica serves."""
        is_leaving = self._state.draining or self._roster.stage is Stage.LEAVING
        if not is_leaving or self._roster.others_serve():
            return []
        return ["the server is draining: it ends what is in flight and takes no new requests"]

    async def look(self) -> None:
        """Asks all models anew, and waits for what they say of themselves."""
        await asyncio.shield(self._look_on())

    def _all_fresh(self) -> bool:
        heard = [self._answered.get(model, -_FRESH_S) for model in self._models]
        if self._supervisor is not None:
            heard.append(self._supervisor_answered)
        return self._clock() - min(heard) < _FRESH_S

    def _look_on(self) -> asyncio.Task[list[str]]:
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look())
        return self._looking

    async def _look(self) -> list[str]:
        asked = [self._reason(model, actor) for model, actor in self._models.items()]
        if self._supervisor is not None:
            asked.append(self._reason_of(self._supervisor))
        return [each for each in await all_of(asked) if each]

    async def _reason_of(self, supervisor: Supervisor) -> str:
        reason = await supervisor.reason()
        self._supervisor_answered = -_FRESH_S if reason else self._clock()
        return reason

    async def _reason(self, model: str, actor: str) -> str:
        try:
            described = await self._describe(actor)
            self.created[model] = int(described["created"])
        except Exception as error:
            self.described.pop(model, None)
            self._answered.pop(model, None)
            return f"actor '{actor}' (model '{model}') {_failure(error)}"
        self.described[model] = described
        self._answered[model] = self._clock()
        return ""

    async def _describe(self, actor: str) -> Mapping[str, Any]:
        # The call has more time than we do: then an error of it is one that the actor tells, perhaps of another actor.
        # Of many models some are asked when others have answered: their time begins only then.
        async with self._places, asyncio.timeout(_ANSWER_S):
            answer: Mapping[str, Any] = await self._ask.call(f"{actor}.describe", timeout_s=2 * _ANSWER_S)
        return answer


def _failure(error: Exception) -> str:
    if isinstance(error, TimeoutError) and not isinstance(error, SlabwireError):
        return f"did not answer within {_ANSWER_S:g} s; see `slabwire top`"
    return f"failed: {described(error)}"
