"""The command line's surface is as it was written down: what scripts rely on changes on purpose or not at all."""

from __future__ import annotations

import cli_surface


def test_the_surface_is_the_one_that_is_written_down() -> None:
    assert cli_surface.surface() == cli_surface.FILE.read_text(), (
        "the command line has changed: if that is meant, run `python tests/helpers/cli_surface.py`, "
        "and say so in CHANGELOG"
    )
