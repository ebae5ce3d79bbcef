"""Tickets that several ingress processes share: in graphs that run, with a client that knows nothing of Slabwire."""

from __future__ import annotations

import base64
import os
import signal
import ssl
from pathlib import Path

import pytest

from front_door import counting
from slabwire import SlabwireError
from slabwire.actors.ingress import Ingress
from slabwire.runtime.errors import GraphError, Overloaded, StartError
from ticket_stage import Client, Load, active, fleet, killed, refused, states
from waiting import wait_until, worker_of


@pytest.fixture(autouse=True)
def directories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLABWIRE_RUN_DIR", str(tmp_path / "run"))
    monkeypatch.setenv("SLABWIRE_STATE_DIR", str(tmp_path / "state"))


@pytest.mark.parametrize("replicas", [2, 4])
def test_every_process_resumes_what_any_other_began_before_and_after_it_is_killed(
    tmp_path: Path, replicas: int
) -> None:
    with fleet(tmp_path, replicas).run() as running:
        client = Client(running)
        assert not client.visit()
        assert [client.visit() for _ in range(8 * replicas)] == [True] * 8 * replicas
        for number in range(replicas):
            killed(running, f"ingress[{number}]")
            assert [client.visit() for _ in range(8)] == [True] * 8
        assert not refused(running, replicas)


def test_sessions_go_on_when_every_process_has_another_certificate(tmp_path: Path) -> None:
    replicas = 2
    with fleet(tmp_path, replicas).run() as running:
        client = Client(running)  # which does not trust the other one: a full handshake would fail
        client.visit()
        before = running.client.call("ingress.describe")["tls"]
        Path(before["certificate"]).with_suffix(".key.pem").unlink()  # so the next is made

        def is_swapped() -> bool:
            seen = {running.client.call("ingress.describe")["tls"]["generation"] for _ in range(replicas)}
            return len(seen) == 1 and before["generation"] not in seen

        wait_until(is_swapped)
        assert [client.visit() for _ in range(8)] == [True] * 8
        assert not refused(running, replicas)
        client.session = None
        with pytest.raises(ssl.SSLCertVerificationError):
            client.visit()


def test_without_a_keeper_each_process_has_keys_of_its_own(tmp_path: Path) -> None:
    with fleet(tmp_path, 2, shared=False).run() as running:
        client = Client(running)
        seen = {client.visit() for _ in range(40)}
        assert seen == {False, True}
        assert set(refused(running, 2)) == {"unknown_key"}


def test_keys_turn_every_second_and_no_session_is_missed(tmp_path: Path) -> None:
    with fleet(tmp_path, 2, lifetime_s=4, interval_s=1, lead_s=0.2).run() as running:
        with Load(running, 4) as load:
            seen = set[str]()
            while len(seen) < 8:
                seen.add(active(running))
                assert len(states(running)) <= 8
        assert load.resumed[True] > 100
        assert load.resumed[False] == 0
        assert not refused(running, 2)


def test_while_the_keeper_is_dead_the_last_keys_go_on_and_its_successor_begins_with_them(tmp_path: Path) -> None:
    with fleet(tmp_path, 2, lifetime_s=4, interval_s=1, lead_s=0.2).run() as running:
        client = Client(running)
        client.visit()
        pid = worker_of(running, "ticketkeys")["pid"]
        os.kill(pid, signal.SIGSTOP)  # as good as dead, and nobody takes its place
        try:
            assert [client.visit() for _ in range(10)] == [True] * 10
            killed(running, "ingress[0]")
            assert [client.visit() for _ in range(10)] == [True] * 10
        finally:
            os.kill(pid, signal.SIGCONT)
        before = active(running)
        killed(running, "ticketkeys")
        assert before in states(running)
        assert client.visit()
        wait_until(lambda: active(running) != before)
        assert client.visit()


def test_a_key_that_is_revoked_opens_nothing_more_and_the_log_says_why(tmp_path: Path) -> None:
    with fleet(tmp_path, 2).run() as running:
        client, call = Client(running), running.client.call
        client.visit()
        old = client.session
        revoked = active(running)
        with pytest.raises(SlabwireError, match="no key has a name that begins with 'zz'"):
            call("ticketkeys.revoke", "zz", "me", "a test")
        call("ticketkeys.revoke", revoked[:8], "me", "it was\nseen")
        assert states(running)[revoked] == "revoked"
        assert active(running) != revoked
        assert [client.visit(old) for _ in range(8)] == [False] * 8
        assert client.visit()  # what was given since then
        assert refused(running, 2) == {"revoked": 8}
        with pytest.raises(SlabwireError, match="is revoked already"):
            call("ticketkeys.revoke", revoked[:8], "me", "once more")
        log = (tmp_path / "run" / "fleet" / "logs" / "ticketkeys.log").read_text()
        assert f"WARNING ticket key {revoked} revoked by me: it was?seen\n" in log


def test_a_rotation_that_is_asked_for_loses_no_session(tmp_path: Path) -> None:
    with fleet(tmp_path, 2, lead_s=0.1).run() as running:
        client, before = Client(running), active(running)
        client.visit()
        running.client.call("ticketkeys.rotate", "me", "a test")
        wait_until(lambda: states(running)[before] == "deprecated")
        assert [client.visit() for _ in range(8)] == [True] * 8
        while len(states(running)) < 16:
            running.client.call("ticketkeys.rotate", "me")
            wait_until(lambda: "pre-rotate" not in states(running).values())
        with pytest.raises(Overloaded, match="the ring has 16 keys, which is the most"):
            running.client.call("ticketkeys.rotate", "me")
        assert client.visit()


def test_no_secret_is_in_any_file_of_the_graph(tmp_path: Path) -> None:
    with fleet(tmp_path, 2, lead_s=0.1).run() as running:
        client, secrets = Client(running), set[str]()
        for ask in (("ticketkeys.rotate", "me"), ("ticketkeys.revoke", active(running), "me", "a test")):
            client.visit()
            secrets.update(running.client.call("spy.secrets"))
            running.client.call(*ask)
        secrets.update(running.client.call("spy.secrets"))
        killed(running, "ticketkeys")
        killed(running, "ingress[0]")
        client.visit()
        assert len(secrets) >= 4
        told = str(running.client.call("ticketkeys.status")) + str(running.client.call("ingress.describe"))
        written = b"".join(each.read_bytes() for each in (tmp_path / "run").rglob("*") if each.is_file())
        assert b"is active" in written
        for secret in map(bytes.fromhex, secrets):
            for form in (secret, secret.hex().encode(), base64.b64encode(secret), repr(secret).encode()):
                assert form not in written
                assert form.decode("latin-1") not in told


def test_tickets_of_an_actor_that_is_not_there_end_the_start(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="ingress reads what 'nobody' keeps as 'ring', and no actor of the graph has"):
        counting(tmp_path, tickets="nobody").run().__enter__()
    with pytest.raises(GraphError, match=r"tickets=1; it must be the name of an actor TicketKeys"):
        Ingress(models={"a": "b"}, tickets=1)  # type: ignore[arg-type]
