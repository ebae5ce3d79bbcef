"""The keeper of the ticket keys: what it is given, and what the command line shows of it and asks it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fake_graphs import invoke
from front_door import Counts
from slabwire import Graph
from slabwire.actors.ingress import TicketKeys
from slabwire.runtime.errors import GraphError
from ticket_stage import active, killed, states
from waiting import wait_until


@pytest.mark.parametrize(
    ("settings", "cause"),
    [
        ({"lifetime_s": 0}, r"lifetime_s=0; it must be whole seconds from 1 to 604800"),
        ({"lifetime_s": 7200.5}, r"lifetime_s=7200\.5"),
        ({"lifetime_s": True}, r"lifetime_s=True"),
        ({"interval_s": 1}, r"interval_s=1; it must be seconds, and at least lifetime_s / 12, .* 16 keys"),
        ({"interval_s": float("inf")}, r"interval_s=inf"),
        ({"lead_s": 3600}, r"lead_s=3600; it must be seconds, and fewer than interval_s=3600"),
        ({"lead_s": -1}, r"lead_s=-1"),
        ({"chain_s": 0}, r"chain_s=0; it must be whole seconds above 0"),
        ({"epoch": -1}, r"epoch=-1; it must be a whole number from 0 on"),
        ({"replicas": 2}, r"actor 'ticketkeys': a TicketKeys was given replicas=2; .* a ring has one writer"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(settings: dict[str, Any], cause: str) -> None:
    with pytest.raises(GraphError, match=cause):
        Graph("keys").add(TicketKeys, **settings)


def keeping(**rules: Any) -> Graph:
    graph = Graph("keys")
    keys = graph.add(TicketKeys, **rules)
    graph.expose(keys.status, keys.rotate, keys.revoke)
    return graph


@pytest.fixture
def running() -> Iterator[Any]:
    with keeping(lead_s=0.05).run() as running:
        yield running


def test_a_successor_continues_the_ring_by_its_own_rules(running: Any) -> None:
    before = active(running)
    running.client.call("ticketkeys.rotate", "me")
    wait_until(lambda: states(running)[before] == "deprecated")
    kept = states(running)
    killed(running, "ticketkeys")
    assert states(running) == kept


def test_in_one_process_keys_turn_too() -> None:
    with keeping(lifetime_s=1, interval_s=0.2, lead_s=0.1).run(in_process=True) as running:
        first = active(running)
        wait_until(lambda: active(running) != first)


def test_the_command_shows_keys_and_turns_them(running: Any, tmp_path: Path) -> None:
    first = active(running)
    shown = invoke("tls", "status", running.name)
    assert shown.exit_code == 0
    assert first[:8] in shown.stdout
    assert first not in shown.stdout
    assert "tickets are good for 2h00m, a full handshake is due after 1d0h" in shown.stdout

    assert "pre-rotate" in invoke("tls", "rotate", running.name, "--reason", "a test").stdout
    wait_until(lambda: states(running)[first] == "deprecated")
    listed = json.loads(invoke("tls", "status", running.name, "--format", "json").stdout)
    assert [each["state"] for each in listed["keys"]] == ["deprecated", "active"]

    second = active(running)
    without = invoke("tls", "rotate", running.name, "--revoke", second[:8])
    assert without.exit_code == 2
    assert "--revoke needs a --reason" in without.stderr
    revoked = invoke("tls", "rotate", running.name, "--revoke", second[:8], "--reason", "it was seen")
    assert revoked.exit_code == 0
    assert states(running)[second] == "revoked"
    again = invoke("tls", "rotate", running.name, "--revoke", second[:8], "--reason", "it was seen")
    assert again.exit_code == 1
    assert "is revoked already" in again.stderr

    log = "\n".join(invoke("logs", running.name, "--tail", "100").stdout.splitlines())
    assert "asks for the next key: a test" in log
    assert f"ticket key {second} revoked by user " in log
    assert ": it was seen" in log


def test_the_command_says_which_keeper_is_meant() -> None:
    graph = keeping()
    other = graph.add(TicketKeys, name="others")
    graph.expose(other.status)
    with graph.run() as running:
        both = invoke("tls", "status", running.name)
        assert both.exit_code == 2
        assert "name one by --keeper: ticketkeys, others" in both.stderr
        assert invoke("tls", "status", running.name, "--keeper", "others").exit_code == 0
        unexposed = invoke("tls", "rotate", running.name, "--keeper", "others")
        assert unexposed.exit_code == 1
        assert "does not expose others.rotate; graph.expose(keys.rotate) does" in unexposed.stderr
        assert "has no such actor: add slabwire.actors" in invoke("tls", "status", "--keeper", "x").stderr


def test_a_graph_without_a_keeper_says_so(tmp_path: Path) -> None:
    graph = Graph("plain")
    graph.expose(graph.add(Counts, folder=str(tmp_path)).describe)
    with graph.run() as running:
        assert "has no such actor: add slabwire.actors.ingress.TicketKeys" in invoke("tls", "status").stderr
        assert running.name == "plain"
