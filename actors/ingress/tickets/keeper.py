"""The actor that turns the ring of ticket keys."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Mapping
from dataclasses import replace
from math import isfinite
from typing import Any

from ....runtime.actor.actor import Actor
from ....runtime.errors import GraphError
from .key import Rules, S, TicketKey
from .memory import RING, RING_NAME, RingReader, RingWriter
from .ring import SLOTS, Ring, advanced, due_at, next_rotation_at, revoked, rotated
from .states import State

logger = logging.getLogger("slabwire")

# RFC 8446, section 4.6.1.
_LONGEST_LIFETIME_S = 7 * 24 * 3600
# Of the keys that are kept until their tickets are over: some places are left for rotations that are asked for.
_MOST_INTERVALS = SLOTS - 4
# The clock may be set while the keeper sleeps.
_LOOK_AGAIN_S = 60.0
_TEXT_LENGTH = 200


class TicketKeys(Actor):
    """The keys of session tickets, for all processes of an ingress:

        keys = graph.add(TicketKeys)
        graph.add(Ingress, models=..., replicas=2, tickets="ticketkeys")
        graph.expose(keys.status, keys.rotate, keys.revoke)     # for slabwire tls

    A new key is active every `interval_s`, known to everybody `lead_s` before. What it has sealed can be opened for
    `lifetime_s` after that, which is how long a ticket is good. After `chain_s` a client has to shake hands in full,
    however often it has resumed. A higher `epoch` makes all clients do so once.

    The keys lie in memory that outlives this actor: while it is gone the last of them go on, and its successor begins
    with them. They end with the graph. There can be one replica only.
    """

    def __init__(
        self,
        lifetime_s: int = 7200,
        interval_s: float = 3600,
        lead_s: float = 10,
        chain_s: int = 24 * 3600,
        epoch: int = 0,
    ) -> None:
        self.__check__(lifetime_s, interval_s, lead_s, chain_s, epoch)
        lifetime, interval, lead, chain = (round(each * S) for each in (lifetime_s, interval_s, lead_s, chain_s))
        self._rules = Rules(lifetime, interval, lead, chain, epoch)
        self._ring = Ring(self._rules)
        self._turning: asyncio.Task[None] | None = None

    @classmethod
    def __check__(
        cls,
        lifetime_s: int = 7200,
        interval_s: float = 3600,
        lead_s: float = 10,
        chain_s: int = 24 * 3600,
        epoch: int = 0,
        *,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        problems = []
        if not _is_whole(lifetime_s, 1, _LONGEST_LIFETIME_S):
            problems.append(f"lifetime_s={lifetime_s!r}; it must be whole seconds from 1 to {_LONGEST_LIFETIME_S}")
        elif not (_is_time(interval_s) and interval_s * _MOST_INTERVALS >= lifetime_s):
            problems.append(
                f"interval_s={interval_s!r}; it must be seconds, and at least lifetime_s / {_MOST_INTERVALS}, for the "
                f"ring has room for {SLOTS} keys"
            )
        elif not (_is_time(lead_s) and lead_s < interval_s):
            problems.append(f"lead_s={lead_s!r}; it must be seconds, and fewer than interval_s={interval_s!r}")
        if not _is_whole(chain_s, 1, 1 << 32):
            problems.append(f"chain_s={chain_s!r}; it must be whole seconds above 0")
        if not _is_whole(epoch, 0, 1 << 63):
            problems.append(f"epoch={epoch!r}; it must be a whole number from 0 on")
        if settings is not None and settings["replicas"] != 1:
            problems.append(f"replicas={settings['replicas']}; it must be 1, for a ring has one writer")
        if problems:
            raise GraphError(*(f"a TicketKeys was given {each}" for each in problems))

    async def on_start(self) -> None:
        kept = self.keep(RING_NAME, RING)
        self._writer = RingWriter(kept)
        found = RingReader(kept).latest()
        if found is None and kept.words[kept.placed.word("generation")]:
            logger.error("the ring of ticket keys cannot be read: it begins anew, and no session is resumed")
        self._ring = replace(found, rules=self._rules) if found is not None else self._ring
        self._publish(advanced(self._ring, time.time_ns()))
        self._changed = asyncio.Event()
        self._turning = asyncio.create_task(self._turn())

    async def on_stop(self) -> None:
        if self._turning is not None:
            self._turning.cancel()

    async def status(self) -> dict[str, Any]:
        """Of each key its name, state and times, and when the next is to be active; all times in seconds since 1970.

        {"keys": [{"name", "state", "created", "active", "expires"}], "next_rotation", "lifetime_s", "interval_s",
        "lead_s", "chain_s", "epoch"}; "active" and "expires" are None where that is not known.
        """
        rules = self._ring.rules
        return {
            "keys": [_described(each) for each in self._ring.keys],
            "next_rotation": next_rotation_at(self._ring) / S,
            **{f"{name}_s": getattr(rules, name) / S for name in ("lifetime", "interval", "lead", "chain")},
            "epoch": rules.epoch,
        }

    async def rotate(self, asked_by: str, reason: str = "") -> dict[str, Any]:
        """The next key becomes active as soon as everybody knows it. Answers as `status`; raises Overloaded where the
        ring is full.
        """
        logger.info("ticket keys: %s asks for the next key: %s", _shown(asked_by), _shown(reason) or "no reason given")
        self._turned(rotated(self._ring, time.time_ns()))
        return await self.status()

    async def revoke(self, key: str, asked_by: str, reason: str) -> dict[str, Any]:
        """Drops the key whose name begins with `key` at once: its tickets are refused. Answers as `status`.

        Raises UnknownKey where none or several are meant, or it is revoked already.
        """
        meant = self._ring.find(key)
        self._turned(revoked(self._ring, meant, time.time_ns()))
        logger.warning("ticket key %s revoked by %s: %s", meant.name.hex(), _shown(asked_by), _shown(reason))
        return await self.status()

    async def _turn(self) -> None:
        """Does what is due, in time. Its end would be that of the process, whose successor begins anew."""
        while True:
            due = due_at(self._ring)
            wait_s = 0.0 if due is None else max(0, due - time.time_ns()) / S
            self._changed.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(wait_s, _LOOK_AGAIN_S)):
                    await self._changed.wait()
            ring = advanced(self._ring, time.time_ns())
            if ring is not self._ring:
                self._publish(ring)

    def _turned(self, ring: Ring) -> None:
        self._publish(ring)
        self._changed.set()

    def _publish(self, ring: Ring) -> None:
        before, after = self._ring.in_state(State.ACTIVE), ring.in_state(State.ACTIVE)
        self._writer.publish(ring)
        self._ring = ring
        if after is not None and (before is None or before.name != after.name):
            logger.info("ticket key %s is active, of %d keys", after.name.hex(), len(ring.keys))


def _described(key: TicketKey) -> dict[str, Any]:
    has_been_active = key.state in (State.ACTIVE, State.DEPRECATED)
    return {
        "name": key.name.hex(),
        "state": str(key.state),
        "created": key.created / S,
        "active": key.activate_at / S if has_been_active or key.state is State.PENDING else None,
        "expires": key.expire_at / S if key.expire_at else None,
    }


def _shown(text: str) -> str:
    """What somebody has sent, for one line of the log."""
    return "".join(each if each.isprintable() else "?" for each in text[:_TEXT_LENGTH])


def _is_whole(value: object, least: int, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _is_time(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and isfinite(value) and value > 0
