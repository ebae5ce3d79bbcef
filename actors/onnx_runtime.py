"""ONNX Runtime, imported without what it would do beside running models."""

from __future__ import annotations

import os
from typing import Any


def import_onnx_runtime() -> Any:
    """The package. From 1.29 on its import would start a thread that collects telemetry, and leave a database in the
    user's home; the variable that prevents it is set here, unless somebody has set it. Raises ImportError.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    return onnxruntime
