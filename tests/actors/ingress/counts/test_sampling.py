"""Which lines a log gets."""

from __future__ import annotations

import logging

import pytest

from slabwire.actors.ingress.counts.sampling import OF_CLIENTS_A_SECOND, OF_OURS_A_SECOND, Sampling
from slabwire.actors.ingress.requests.request_id import Names
from slabwire.actors.ingress.requests.request_lines import RequestLines


def test_when_all_is_well_a_line_now_and_then() -> None:
    now = [0.0]
    sampling = Sampling(lambda: now[0])
    assert sampling.well() == ""
    assert [sampling.well() for _ in range(5)] == [None] * 5
    now[0] = 10.0
    assert sampling.well() == " unlogged_before=5"
    now[0] = 20.0
    assert sampling.well() == ""


def test_a_flood_of_trouble_is_cut_and_its_length_told() -> None:
    now = [0.0]
    sampling = Sampling(lambda: now[0])
    said = [sampling.troubled() for _ in range(OF_CLIENTS_A_SECOND + 7)]
    assert said == [""] * OF_CLIENTS_A_SECOND + [None] * 7
    now[0] = 1.0
    assert sampling.troubled() == " unlogged_before=7"


def test_a_line_names_request_and_trace_and_never_what_was_said(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "slabwire")
    lines = RequestLines(lambda: 0.0)
    names = Names("req_1", "ab" * 16)
    lines.say(names, "smol", 200, 0.5, 0.1)
    lines.say(names, "smol", 200, 0.5, 0.1)  # within ten seconds
    lines.say(Names("req_2", ""), "", 404, 0.001, None)
    for _ in range(OF_OURS_A_SECOND + 1):
        lines.say(names, "smol", 503, 2.0, 0.1)
    assert caplog.messages[:3] == [
        f"request status=200 model=smol seconds=0.500 first_token_s=0.100 id=req_1 trace={'ab' * 16}",
        "request status=404 model=- seconds=0.001 id=req_2",
        f"request status=503 model=smol seconds=2.000 first_token_s=0.100 id=req_1 trace={'ab' * 16}",
    ]
    assert len(caplog.messages) == 2 + OF_OURS_A_SECOND
    assert caplog.records[2].levelname == "ERROR"
