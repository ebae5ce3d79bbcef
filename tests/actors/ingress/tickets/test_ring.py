"""How the ring of ticket keys turns, at every time and in any order of events."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from slabwire.actors.ingress.tickets.key import Rules, S, TicketKey
from slabwire.actors.ingress.tickets.ring import (
    SLOTS,
    Ring,
    UnknownKey,
    advanced,
    due_at,
    has_room,
    next_rotation_at,
    revoked,
    rotated,
)
from slabwire.actors.ingress.tickets.states import OPENING, State
from slabwire.runtime.errors import Overloaded

NOW = 1_800_000_000 * S
RULES = Rules(lifetime=400 * S, interval=100 * S, lead=10 * S)
SLACK = S


def states(ring: Ring) -> list[State]:
    return [each.state for each in ring.keys]


def test_a_new_ring_has_a_key_that_seals_at_once() -> None:
    ring = advanced(Ring(RULES), NOW)
    assert states(ring) == [State.ACTIVE]
    assert advanced(ring, NOW + S) is ring
    assert due_at(Ring(RULES)) is None
    assert (due_at(ring), next_rotation_at(ring)) == (NOW + 90 * S, NOW + 100 * S)


def test_a_key_is_known_before_it_seals_and_opens_until_its_last_ticket_is_over() -> None:
    ring, first = advanced(Ring(RULES), NOW), advanced(Ring(RULES), NOW).keys[0]
    ring = advanced(Ring(RULES, (first,)), NOW + 90 * S)
    assert states(ring) == [State.ACTIVE, State.PENDING]
    assert due_at(ring) == next_rotation_at(ring) == NOW + 100 * S
    ring = advanced(ring, NOW + 100 * S)
    assert states(ring) == [State.DEPRECATED, State.ACTIVE]
    assert ring.keys[0].expire_at == NOW + 500 * S + SLACK
    ring = advanced(ring, NOW + 500 * S + SLACK)
    assert first.name not in {each.name for each in ring.keys}


def test_who_comes_late_gives_the_next_key_its_lead() -> None:
    """A keeper that was dead for hours: the old key sealed all the while, so it opens for a lifetime from then on."""
    late = NOW + 50_000 * S
    ring = advanced(advanced(Ring(RULES), NOW), late)
    assert states(ring) == [State.ACTIVE, State.PENDING]
    assert due_at(ring) == late + RULES.lead
    ring = advanced(ring, late + RULES.lead)
    assert ring.keys[0].expire_at == late + RULES.lead + RULES.lifetime + SLACK
    assert next_rotation_at(ring) == late + RULES.lead + RULES.interval


def test_a_rotation_that_is_asked_for_comes_after_the_lead() -> None:
    ring = rotated(advanced(Ring(RULES), NOW), NOW + S)
    assert (states(ring), due_at(ring)) == ([State.ACTIVE, State.PENDING], NOW + S + RULES.lead)
    assert rotated(ring, NOW + 2 * S) == ring
    ring = advanced(ring, NOW + S + RULES.lead)
    assert next_rotation_at(ring) == NOW + S + RULES.lead + RULES.interval


def test_a_scheduled_rotation_is_brought_forward() -> None:
    rules = Rules(lifetime=400 * S, interval=100 * S, lead=50 * S)
    ring = advanced(advanced(Ring(rules), NOW), NOW + 50 * S)
    assert next_rotation_at(rotated(ring, NOW + 60 * S)) == NOW + 100 * S


def test_a_revoked_key_is_a_name_without_secrets_and_the_next_seals_at_once() -> None:
    ring = advanced(Ring(RULES), NOW)
    key = ring.keys[0]
    ring = revoked(ring, key, NOW + S)
    assert states(ring) == [State.REVOKED, State.ACTIVE]
    assert (ring.keys[0].name, ring.keys[0].aes, ring.keys[0].hmac) == (key.name, bytes(32), bytes(32))
    with pytest.raises(UnknownKey, match="is revoked already"):
        revoked(ring, ring.keys[0], NOW + S)
    pending = rotated(ring, NOW + 2 * S)
    assert states(revoked(pending, pending.keys[1], NOW + 3 * S)) == [State.REVOKED, State.REVOKED, State.ACTIVE]
    assert states(revoked(pending, pending.keys[2], NOW + 3 * S)) == [State.REVOKED, State.ACTIVE, State.REVOKED]


def test_a_full_ring_makes_no_key_before_one_has_gone() -> None:
    rules = Rules(lifetime=400 * S, interval=100 * S, lead=0)
    ring = advanced(Ring(rules), NOW)
    for second in range(1, SLOTS):
        ring = rotated(ring, NOW + second * S)
    assert len(ring.keys) == SLOTS
    with pytest.raises(Overloaded, match="16 keys, which is the most"):
        rotated(ring, NOW + 20 * S)
    assert due_at(ring) == ring.keys[0].expire_at
    ring = revoked(ring, ring.keys[3], NOW + 20 * S)
    assert len(rotated(ring, NOW + 20 * S).keys) == SLOTS  # a name that was only remembered made room


def test_keys_are_found_by_how_their_names_begin() -> None:
    ring = rotated(advanced(Ring(RULES), NOW), NOW)
    for key in ring.keys:
        assert ring.find(key.name.hex().upper()[:12]) is key
    for prefix, cause in (("", "2 keys have names that begin"), ("x", "no key has a name that begins with 'x'")):
        with pytest.raises(UnknownKey, match=cause):
            ring.find(prefix)


def test_no_secret_is_shown() -> None:
    key = TicketKey.make(NOW, NOW)
    assert repr(key.aes) not in repr(key)
    assert repr(key.hmac) not in repr(Ring(RULES, (key,)))


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["wait", "until due", "rotate", "revoke", "set back", "set forth"]), st.integers(0, 1000)
    ),
    max_size=60,
)


@settings(max_examples=300, deadline=None)
@given(EVENTS)
@example([("until due", 0), ("wait", 100), ("set forth", 5), ("set back", 100)])
def test_whatever_happens_one_key_seals_and_what_it_has_sealed_can_be_opened(events: list[tuple[str, int]]) -> None:
    names = (n.to_bytes(16, "big") for n in itertools.count())

    def make(now: int, activate_at: int) -> TicketKey:
        made = TicketKey.make(now, activate_at)
        return TicketKey(made.state, next(names), made.aes, made.hmac, now, activate_at)

    now, ring = NOW, advanced(Ring(RULES), NOW, make)
    sealed: dict[bytes, int] = {}  # until when the newest ticket of each key is good
    for event, number in events:
        active = ring.in_state(State.ACTIVE)
        assert active is not None
        sealed[active.name] = now + RULES.lifetime
        match event:
            case "wait":
                now += number * S // 10
            case "until due":
                now = max(now, due_at(ring) or now)
            case "rotate" if has_room(ring) or ring.in_state(State.PENDING):
                ring = rotated(ring, now, make)
            case "revoke" if (key := ring.keys[number % len(ring.keys)]).state is not State.REVOKED:
                ring = revoked(ring, key, now, make)
                sealed.pop(key.name, None)
            case "set back":
                now -= number * S
                sealed = {name: min(until, now + RULES.lifetime) for name, until in sealed.items()}
            case "set forth":
                now += number * 100 * S
        # A key that was active until now sealed until now, however late this is seen.
        if (active := ring.in_state(State.ACTIVE)) is not None:
            sealed[active.name] = max(sealed.get(active.name, 0), now + RULES.lifetime)
        ring = advanced(ring, now, make)
        assert advanced(ring, now, make) is ring
        assert states(ring).count(State.ACTIVE) == 1
        assert states(ring).count(State.PENDING) <= 1
        assert len(ring.keys) <= SLOTS
        assert len({each.name for each in ring.keys}) == len(ring.keys)
        due = due_at(ring)
        assert due is not None
        assert now < due <= now + max(RULES.lifetime + SLACK, RULES.interval)
        opening = {each.name for each in ring.keys if each.state in OPENING}
        sealed = {name: until for name, until in sealed.items() if until >= now}  # over for good: clocks are set back
        assert set(sealed) <= opening
