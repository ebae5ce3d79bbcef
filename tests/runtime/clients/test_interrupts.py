"""Exceptions that a signal's handler raises in the middle of a call, as Ctrl-C does: at any line, in any client."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

STAGE = Path(__file__).parents[2] / "stages" / "interrupt_stage.py"


@pytest.mark.long
@pytest.mark.parametrize("form", ["local", "remote", "in_process"])
def test_interrupts_neither_lock_nor_mix_up_answers(form: str) -> None:
    done = subprocess.run([sys.executable, STAGE, form], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    found = json.loads(done.stdout)
    assert found["wrong"] == []
    assert found["answered"] > 0
    assert found["interrupted"] > 0
    assert found["after"]
