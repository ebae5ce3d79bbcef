"""A ring of ticket keys, and how it turns: which key is made, becomes active, is deprecated and goes, and when. Pure.

Time is an argument, in ns since 1970, since tickets bear the time of day. It may be set back or forth: no key lasts
longer for that than the rules say, and a jump forth ends tickets early.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from ....runtime.errors import Overloaded, SlabwireError
from .key import Rules, S, TicketKey
from .states import Event, State

SLOTS = 16
# libssl counts in whole seconds: a ticket of two seconds is taken for nearly three.
_SLACK = S

Make = Callable[[int, int], TicketKey]


class UnknownKey(SlabwireError):
    """No key of the ring is meant, or more than one."""

    code = "unknown_key"


@dataclass(frozen=True, slots=True)
class Ring:
    """`SLOTS` keys at most, of different names, one of them active: the oldest first."""

    rules: Rules
    keys: tuple[TicketKey, ...] = ()

    def in_state(self, state: State) -> TicketKey | None:
        """The first key in this state."""
        return next((each for each in self.keys if each.state is state), None)

    def find(self, prefix: str) -> TicketKey:
        """The key whose name begins with these hexadecimal digits. Raises UnknownKey."""
        found = [each for each in self.keys if each.name.hex().startswith(prefix.lower())]
        if len(found) != 1:
            many = f"{len(found)} keys have names that begin" if found else "no key has a name that begins"
            raise UnknownKey(f"{many} with {prefix!r}; `slabwire tls status` lists the names")
        return found[0]


def advanced(ring: Ring, now: int, make: Make = TicketKey.make) -> Ring:
    """The ring as it is to be now: what is due is done. The same object where nothing is."""
    keys = [_not_beyond(each, ring.rules, now) for each in ring.keys]
    keys = [each.meet(Event.EXPIRED) if each.expire_at and each.expire_at <= now else each for each in keys]
    keys = [each for each in keys if each.state is not State.GONE]
    turned = _with_active(replace(ring, keys=tuple(keys)), now, make)
    if turned.in_state(State.PENDING) is None and _rotation_at(turned) - ring.rules.lead <= now and has_room(turned):
        turned = _with_pending(turned, now, max(_rotation_at(turned), now + ring.rules.lead), make)
    return ring if turned == ring else turned


def due_at(ring: Ring) -> int | None:
    """When `advanced` has something to do next; None: now."""
    if ring.in_state(State.ACTIVE) is None:
        return None
    due = [each.expire_at for each in ring.keys if each.expire_at]
    pending = ring.in_state(State.PENDING)
    if pending is not None:
        due.append(pending.activate_at)
    elif has_room(ring):
        due.append(_rotation_at(ring) - ring.rules.lead)
    return min(due)


def next_rotation_at(ring: Ring) -> int:
    """When the next key is to become active."""
    pending = ring.in_state(State.PENDING)
    return pending.activate_at if pending is not None else _rotation_at(ring)


def rotated(ring: Ring, now: int, make: Make = TicketKey.make) -> Ring:
    """The next key becomes active as soon as it has been known for its lead. Overloaded: there is no room for it."""
    pending = ring.in_state(State.PENDING)
    if pending is not None:
        sooner = replace(pending, activate_at=min(pending.activate_at, pending.created + ring.rules.lead))
        return advanced(_with(ring, pending, sooner), now, make)
    if not has_room(ring):
        raise Overloaded(f"the ring has {SLOTS} keys, which is the most; the first of them goes when it has expired")
    return advanced(_with_pending(ring, now, now + ring.rules.lead, make), now, make)


def revoked(ring: Ring, key: TicketKey, now: int, make: Make = TicketKey.make) -> Ring:
    """Without this key. Was it active, the next one is at once, known for its lead or not. Raises UnknownKey where it
    is revoked already.
    """
    if key.state is State.REVOKED:
        raise UnknownKey(f"the key {key.name.hex()} is revoked already")
    gone = replace(key.meet(Event.REVOKED), expire_at=_tickets_over_at(ring, now))
    return advanced(_with(ring, key, gone), now, make)


def has_room(ring: Ring) -> bool:
    """Whether a key can be made: a name that was only remembered makes room for it."""
    return len(ring.keys) < SLOTS or ring.in_state(State.REVOKED) is not None


def _rotation_at(ring: Ring) -> int:
    active = ring.in_state(State.ACTIVE)
    return active.activate_at + ring.rules.interval if active is not None else 0


def _with_active(ring: Ring, now: int, make: Make) -> Ring:
    """Activates the pending key if its time has come, or if there is no other; makes one if there is none."""
    active, pending = ring.in_state(State.ACTIVE), ring.in_state(State.PENDING)
    if active is not None and (pending is None or pending.activate_at > now):
        return ring
    if pending is None:
        ring = _with_pending(ring, now, now, make)
        pending = ring.keys[-1]
    if active is not None:
        ring = _with(ring, active, replace(active.meet(Event.REPLACED), expire_at=_tickets_over_at(ring, now)))
    return _with(ring, pending, replace(pending.meet(Event.ACTIVATED), activate_at=now))


def _tickets_over_at(ring: Ring, now: int) -> int:
    """When a ticket is over that is sealed now."""
    return now + ring.rules.lifetime + _SLACK


def _with_pending(ring: Ring, now: int, activate_at: int, make: Make) -> Ring:
    forgotten = ring.in_state(State.REVOKED) if len(ring.keys) >= SLOTS else None
    kept = tuple(each for each in ring.keys if each is not forgotten)
    return replace(ring, keys=(*kept, make(now, activate_at)))


def _with(ring: Ring, old: TicketKey, new: TicketKey) -> Ring:
    return replace(ring, keys=tuple(new if each is old else each for each in ring.keys))


def _not_beyond(key: TicketKey, rules: Rules, now: int) -> TicketKey:
    """As it would be had the clock not been set back, nor the rules been others when it was made."""
    latest = now + rules.interval if key.state is State.PENDING else now
    activate_at, expire_at = min(key.activate_at, latest), min(key.expire_at, now + rules.lifetime + _SLACK)
    if (activate_at, expire_at) == (key.activate_at, key.expire_at):
        return key
    return replace(key, activate_at=activate_at, expire_at=expire_at)
