"""Other libraries take what clients and actors receive: by DLPack, and by the buffer protocol."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from memory_stage import Several
from slabwire import Graph

NBOXES = 500


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("SLABWIRE_RUN_DIR", str(tmp_path / "run"))
    graph = Graph("exports")
    several = graph.add(Several)
    graph.expose(several.detect, several.out)
    with graph.run() as running:
        yield running.client


def test_an_export_is_the_same_memory_and_holds_it(client: Any) -> None:
    for export in (np.from_dlpack, memoryview):
        boxes = client.call("several.detect", NBOXES)["boxes"]
        exported = export(boxes)
        view = np.asarray(exported)
        assert view.ctypes.data == boxes.ctypes.data, "nothing was copied"
        assert not view.flags.writeable
        del boxes, view
        for _ in range(30):  # the actor has blocks enough to write the next ones to
            client.call("several.detect", NBOXES + 1)
        gc.collect()
        assert client.call("several.out") == 1
        assert np.array_equal(np.asarray(exported), np.arange(4 * NBOXES, dtype=np.float32).reshape(-1, 4))
        del exported
        assert client.call("several.out") == 0


def test_what_has_no_export_says_so_and_goes_as_integers(client: Any) -> None:
    """bfloat16 is ml_dtypes': neither protocol has a code for it that numpy would write."""
    _, scores = client.call("several.detect", NBOXES)["scores"]
    assert scores.dtype == ml_dtypes.bfloat16
    with pytest.raises(BufferError, match="DLPack only supports"):
        np.from_dlpack(scores)
    with pytest.raises(ValueError, match="cannot include dtype"):
        memoryview(scores)
    integers = np.from_dlpack(scores.view(np.uint16))
    assert integers.ctypes.data == scores.ctypes.data
    del scores
    gc.collect()
    assert client.call("several.out") == 1
    assert set(integers.view(ml_dtypes.bfloat16).astype(float)) == {0.5}
