"""What a program pays at its start."""

from __future__ import annotations

import subprocess
import sys

FACE = """
import sys
import slabwire
for name in slabwire.__all__:
    getattr(slabwire, name)
heavy = {"onnxruntime", "uvicorn", "jaxtyping", "starlette", "cryptography", "click", "rich", "cloudpickle", "pandas"}
sys.exit(", ".join(sorted(heavy & set(sys.modules))))
"""


def imported(program: str) -> str:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    return done.stderr.strip()


def test_the_public_face_imports_nothing_heavy() -> None:
    assert imported(FACE) == ""


def test_the_bare_package_imports_nothing_at_all() -> None:
    program = "import sys, slabwire; sys.exit(' '.join({'numpy', 'zmq', 'asyncio', 'msgpack'} & set(sys.modules)))"
    assert imported(program) == ""
