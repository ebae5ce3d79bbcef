"""What a ticket is bound to, and why one is refused: in words, and with a terminator and Python's own client."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from slabwire.actors.ingress.certificates.certificate import Certificate
from slabwire.actors.ingress.certificates.development import development_certificate
from slabwire.actors.ingress.tickets.key import Rules, S
from slabwire.actors.ingress.tickets.ring import Ring, advanced, revoked, rotated
from slabwire.actors.ingress.tickets.terms import (
    Refusal,
    binding_of,
    packed,
    policy_of,
    read,
    why_not_opened,
    why_not_taken,
)
from slabwire.actors.ingress.tls.libssl import libssl
from slabwire.actors.ingress.tls.libssl_terminator import LibsslTerminator
from slabwire.actors.ingress.tls.terminator import Minimum
from slabwire.actors.ingress.tls.tickets import Tickets
from tls_stage import client_context, opened, run

NOW = 1_800_000_000
NONE = policy_of("1.3", 0, b"")


# -- pure ------------------------------------------------------------------------------------------------------------


def test_notes_travel_and_what_is_none_is_seen() -> None:
    noted = packed(NOW)
    assert read(noted) == NOW
    for other in (b"", noted[:-1], noted + b"\0", b"\1" + noted[1:]):
        assert read(other) is None


def test_names_differ_in_more_than_their_case_and_policies_in_all_that_clients_must_do() -> None:
    assert binding_of(b"A.test", NONE, 0) == binding_of(b"a.test", NONE, 0) != binding_of(b"b.test", NONE, 0)
    assert binding_of(b"a.test", NONE, 0) != binding_of(b"a.test", NONE, 1)
    assert len(binding_of(b"", NONE, 0)) == 32  # the most that libssl takes
    others = {policy_of("1.2", 0, b""), policy_of("1.3", 1, b""), policy_of("1.3", 1, b"ca"), NONE}
    assert len(others) == 4


def test_every_reason_in_words() -> None:
    key = advanced(Ring(Rules()), NOW * S).keys[0]
    gone = revoked(Ring(Rules(), (key,)), key, NOW * S).keys[0]
    assert why_not_opened(None, NOW * S) is Refusal.UNKNOWN_KEY
    assert why_not_opened(key, NOW * S) is Refusal.MALFORMED
    assert why_not_opened(gone, NOW * S) is Refusal.REVOKED
    assert why_not_opened(replace(key, expire_at=NOW * S), NOW * S) is Refusal.EXPIRED
    here, rules = binding_of(b"a", NONE, 1), Rules(chain=100 * S)
    assert why_not_taken(NOW, here, here, rules, NOW + 99) is None
    assert why_not_taken(NOW, here, here, rules, NOW + 100) is Refusal.CHAIN_ENDED
    assert why_not_taken(NOW, binding_of(b"b", NONE, 1), here, rules, NOW) is Refusal.OTHER_NAME
    assert why_not_taken(NOW, binding_of(b"a", b"x", 1), here, rules, NOW) is Refusal.POLICY_CHANGED
    assert why_not_taken(NOW, binding_of(b"a", NONE, 0), here, rules, NOW) is Refusal.POLICY_CHANGED
    assert why_not_taken(None, here, here, rules, NOW) is Refusal.MALFORMED


# -- with libssl -----------------------------------------------------------------------------------------------------


class Source:
    """Keys that a test sets."""

    def __init__(self, rules: Rules | None = None) -> None:
        self.ring: Ring | None = advanced(Ring(rules or Rules()), time.time_ns())

    def latest(self) -> Ring | None:
        return self.ring

    def set(self, turned: Callable[[Ring, int], Ring]) -> None:
        assert self.ring is not None
        self.ring = turned(self.ring, time.time_ns())


@pytest.fixture
def certificate(tmp_path: Path) -> Certificate:
    return development_certificate("localhost", tmp_path / "tls")


class Visitor:
    """Visits a terminator that runs on another thread's loop, with the session of the last visit."""

    def __init__(self, certificate: Certificate, version: ssl.TLSVersion) -> None:
        self.context = client_context(certificate, maximum_version=version)
        self.context.check_hostname = False
        self.session: ssl.SSLSession | None = None
        self.address = "", 0

    def visit(self, name: str = "localhost", session: ssl.SSLSession | None = None) -> bool:
        with (
            socket.create_connection(self.address) as plain,
            self.context.wrap_socket(plain, server_hostname=name, session=session or self.session) as connection,
        ):
            connection.sendall(b"x")
            assert connection.recv(1) == b"X"
            self.session = connection.session
            return bool(connection.session_reused)


MINIMA: tuple[Minimum, ...] = ("1.3", "1.2")
VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


@pytest.fixture(params=VERSIONS, ids=str)
def version(request: pytest.FixtureRequest) -> ssl.TLSVersion:
    return ssl.TLSVersion(request.param)


def scene(
    certificate: Certificate,
    version: ssl.TLSVersion,
    play: Callable[[Visitor, Source, LibsslTerminator], None],
    rules: Rules | None = None,
) -> dict[str, int]:
    """Plays in a thread against a terminator; what it has refused then."""
    source = Source(rules)
    terminator = LibsslTerminator(libssl(), [certificate], "1.2", source)

    async def act() -> None:
        async with opened(terminator) as door:
            visitor = Visitor(certificate, version)
            visitor.address = door.address
            accepting = asyncio.create_task(door.secure_all())
            try:
                await asyncio.to_thread(play, visitor, source, terminator)
            finally:
                accepting.cancel()
                await asyncio.gather(accepting, return_exceptions=True)

    run(act)
    return {reason: count for reason, count in terminator.describe()["tickets"]["refused"].items() if count}


def test_a_ticket_lives_through_rotations_and_is_renewed(certificate: Certificate, version: ssl.TLSVersion) -> None:
    def play(visitor: Visitor, source: Source, terminator: LibsslTerminator) -> None:
        assert not visitor.visit()
        for _ in range(4):
            source.set(rotated)
            assert visitor.visit()
        assert source.ring is not None
        source.ring = replace(source.ring, keys=source.ring.keys[1:])
        assert visitor.visit()
        assert terminator.describe()["tickets"]["key"] == source.ring.keys[-1].name.hex()[:8]

    assert scene(certificate, version, play, Rules(lead=0)) == {}


def test_a_swap_of_certificates_keeps_the_keys_and_what_is_counted(
    certificate: Certificate, version: ssl.TLSVersion
) -> None:
    def play(visitor: Visitor, source: Source, terminator: LibsslTerminator) -> None:
        assert not visitor.visit()
        for _ in range(3):
            terminator.swap([certificate])
            assert visitor.visit()
            source.set(rotated)
            assert visitor.visit()
        source.set(lambda ring, now: advanced(Ring(ring.rules), now))
        assert not visitor.visit()

    assert scene(certificate, version, play, Rules(lead=0)) == {"unknown_key": 1}


def test_each_resumption_of_tls_1_3_brings_another_ticket(certificate: Certificate, version: ssl.TLSVersion) -> None:
    def play(visitor: Visitor, source: Source, _: LibsslTerminator) -> None:
        visitor.visit()
        before = visitor.session
        assert visitor.visit()
        assert (visitor.session != before) == (version is ssl.TLSVersion.TLSv1_3)
        source.set(rotated)
        assert visitor.visit()
        assert visitor.session != before

    assert scene(certificate, version, play, Rules(lead=0)) == {}


def test_a_ticket_of_one_name_is_refused_at_another(certificate: Certificate, version: ssl.TLSVersion) -> None:
    def play(visitor: Visitor, source: Source, _: LibsslTerminator) -> None:
        visitor.visit("a.test")
        session = visitor.session
        assert visitor.visit("A.TEST", session)
        assert not visitor.visit("b.test", session)
        assert visitor.visit("a.test", session)

    assert scene(certificate, version, play) == {"other_name": 1}


def test_a_ticket_given_under_other_rules_for_clients_is_refused(certificate: Certificate) -> None:
    """Two ingresses may share a ring: what one lets in is not let in by the other."""
    source = Source()
    strict, lax = (LibsslTerminator(libssl(), [certificate], minimum, source) for minimum in MINIMA)

    async def act() -> None:
        visitor = Visitor(certificate, ssl.TLSVersion.TLSv1_3)
        async with opened(lax) as one, opened(strict) as other:
            accepting = [asyncio.create_task(each.secure_all()) for each in (one, other)]
            for door, resumes in ((one, False), (one, True), (other, False), (other, True), (one, False)):
                visitor.address = door.address
                assert await asyncio.to_thread(visitor.visit) == resumes
            for each in accepting:
                each.cancel()
            await asyncio.gather(*accepting, return_exceptions=True)

    run(act)
    assert (
        strict.describe()["tickets"]["refused"]["policy_changed"]
        == lax.describe()["tickets"]["refused"]["policy_changed"]
        == 1
    )


def test_a_chain_of_resumptions_ends(certificate: Certificate, version: ssl.TLSVersion) -> None:
    """The chain's beginning is what the first ticket says, so a chain that has got shorter has ended."""

    def play(visitor: Visitor, source: Source, _: LibsslTerminator) -> None:
        assert [visitor.visit() for _ in range(3)] == [False, True, True]
        assert visitor.session is not None
        assert visitor.session.ticket_lifetime_hint <= 600
        before = visitor.session
        assert source.ring is not None
        source.ring = replace(source.ring, rules=Rules(chain=0))
        assert not visitor.visit(session=before)

    assert scene(certificate, version, play, Rules(chain=600 * S)) == {"chain_ended": 1}


def test_a_full_handshake_is_remembered_over_resumptions(
    certificate: Certificate, version: ssl.TLSVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    library, given = libssl(), list[int | None]()
    noted = library.SSL_SESSION_set1_ticket_appdata

    def note(session: int, data: bytes, nbytes: int) -> int:
        given.append(read(data))
        return int(noted(session, data, nbytes))

    monkeypatch.setattr(library, "SSL_SESSION_set1_ticket_appdata", note)

    def play(visitor: Visitor, source: Source, _: LibsslTerminator) -> None:
        first = int(time.time())
        visitor.visit()
        full_at = range(first, int(time.time()) + 1)
        for _number in range(2):
            source.set(rotated)  # which renews tickets of TLS 1.2, too
            time.sleep(1.1)  # notes count in seconds
            assert visitor.visit()
        assert len(given) == 1  # later tickets are copies
        assert given[0] in full_at
        assert source.ring is not None
        source.ring = replace(source.ring, rules=Rules(chain=2 * S))
        assert not visitor.visit()

    assert scene(certificate, version, play, Rules(lead=0)) == {"chain_ended": 1}


def test_another_epoch_and_other_keys(certificate: Certificate, version: ssl.TLSVersion) -> None:
    def play(visitor: Visitor, source: Source, _: LibsslTerminator) -> None:
        visitor.visit()
        assert source.ring is not None
        source.ring = replace(source.ring, rules=Rules(epoch=1))
        assert [visitor.visit(), visitor.visit()] == [False, True]
        source.ring = Source(Rules(epoch=1)).ring
        assert [visitor.visit(), visitor.visit()] == [False, True]
        source.set(lambda ring, now: revoked(ring, ring.keys[0], now))
        assert [visitor.visit(), visitor.visit()] == [False, True]

    assert scene(certificate, version, play) == {"policy_changed": 1, "unknown_key": 1, "revoked": 1}


def test_an_expired_key_opens_nothing_though_nobody_took_it_away(
    certificate: Certificate, version: ssl.TLSVersion
) -> None:
    def play(visitor: Visitor, source: Source, _: LibsslTerminator) -> None:
        visitor.visit()
        source.set(rotated)
        assert source.ring is not None
        old = replace(source.ring.keys[0], expire_at=time.time_ns())
        source.ring = replace(source.ring, keys=(old, *source.ring.keys[1:]))
        assert not visitor.visit()

    assert scene(certificate, version, play, Rules(lead=0)) == {"expired": 1}


def test_without_a_key_there_are_no_tickets_and_handshakes_go_on(
    certificate: Certificate, version: ssl.TLSVersion
) -> None:
    def play(visitor: Visitor, source: Source, terminator: LibsslTerminator) -> None:
        later, source.ring = source.ring, None
        assert [visitor.visit() for _ in range(2)] == [False, False]
        assert not (visitor.session and visitor.session.has_ticket)
        assert terminator.describe()["tickets"]["key"] is None
        source.ring = later
        assert [visitor.visit() for _ in range(2)] == [False, True]

    assert scene(certificate, version, play) == {}


@pytest.mark.parametrize("broken", ["_full_at", "_refusal_of"])
def test_a_fault_of_ours_costs_a_resumption_and_no_connection(
    certificate: Certificate, version: ssl.TLSVersion, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    def play(visitor: Visitor, source: Source, _: LibsslTerminator) -> None:
        visitor.visit()
        monkeypatch.setattr(Tickets, broken, fault)
        visitor.visit()
        monkeypatch.undo()
        assert [visitor.visit(), visitor.visit()][1]

    def fault(*_: Any) -> Any:
        raise KeyboardInterrupt("in a callback")

    scene(certificate, version, play)


def test_a_ticket_that_was_changed_is_malformed(certificate: Certificate) -> None:
    """Another key of the same name: what it opens is nothing."""

    def play(visitor: Visitor, source: Source, _: LibsslTerminator) -> None:
        visitor.visit()
        assert source.ring is not None
        other = replace(source.ring.keys[0], hmac=bytes(32))
        source.ring = replace(source.ring, keys=(other,))
        assert [visitor.visit(), visitor.visit()] == [False, True]

    assert scene(certificate, ssl.TLSVersion.TLSv1_3, play) == {"malformed": 1}
