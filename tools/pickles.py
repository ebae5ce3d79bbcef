"""Compares cloudpickle, dill and pickle on what travels to workers by value, and prints sizes and medians.

    pip install dill
    python tools/pickles.py

The code comes from standard input, as at a prompt and in a notebook: its `__main__` has no file that a worker could
import. Each case is packed there, and unpacked and tried in another process. A case that fails says why.
"""

from __future__ import annotations

import base64
import json
import subprocess
import sys

# How each library is asked. cloudpickle is what `runtime/actor/user_code.py` uses; dill is asked by value and with
# classes by reference.
WAYS = {
    "cloudpickle": "import cloudpickle as library; dumps = library.dumps",
    "dill": "import dill as library; dumps = lambda it: library.dumps(it, recurse=True)",
    "dill, byref": "import dill as library; dumps = lambda it: library.dumps(it, recurse=True, byref=True)",
    "pickle": "import pickle as library; dumps = library.dumps",
}
ACTOR = """
import slabwire
import numpy as np
class Scale(slabwire.Actor):
    def __init__(self, by: float = 2.0): self.by = by
    def image(self, pixels: np.ndarray) -> float: return float(pixels.mean() * self.by)
"""
# Name, the code of the prompt, what is packed, and what must be true of `it` where it is unpacked.
CASES = (
    ("lambda", "", "lambda x: x + 1", "it(2) == 3"),
    ("function with a global", "K = 3\ndef times(x): return x * K", "times", "it(2) == 6"),
    ("closure", "def outer(k):\n    def inner(x): return x + k\n    return inner", "outer(5)", "it(1) == 6"),
    ("class of the prompt", "class A:\n    def f(self, x): return x", "A", "it().f(4) == 4"),
    ("subclass with super()", "class B(list):\n    def __init__(self): super().__init__([1])", "B", "it() == [1]"),
    ("class within a function", "def make():\n    class C:\n        k = 2\n    return C", "make()", "it.k == 2"),
    (
        "actor with annotations",
        ACTOR,
        "Scale",
        "it().by == 2.0",
    ),
    ("generator, coroutine", "def g():\n    yield 1\nasync def c(): return 2", "(g, c)", "list(it[0]()) == [1]"),
    (
        "functions that call each other",
        "def a(n): return n and b(n - 1)\ndef b(n): return n and a(n - 1)",
        "a",
        "it(3) == 0",
    ),
    ("dataclass", "from dataclasses import dataclass\n@dataclass\nclass D:\n    x: int = 1", "D(7)", "it.x == 7"),
    ("enum", "from enum import Enum\nclass E(Enum):\n    A = 1", "E.A", "it.value == 1"),
    ("numpy array, 1 MB", "import numpy as np", "np.arange(131072)", "it.sum() == 131071 * 65536"),
    ("lock", "import threading", "threading.Lock()", "it.acquire()"),
    ("open file", "file = open('/dev/null')", "file", "it.read() == ''"),
    ("logger", "import logging", "logging.getLogger('a')", "it.name == 'a'"),
)
PACK = """
import base64, json, time
{code}
{way}
it = {value}
try:
    packed = dumps(it)
    times = []
    for _ in range(15):
        began = time.perf_counter(); dumps(it); times.append(time.perf_counter() - began)
    print(json.dumps([base64.b64encode(packed).decode(), sorted(times)[7] * 1e6]))
except Exception as error:
    print(json.dumps([None, type(error).__name__]))
"""
UNPACK = """
import base64, json, sys, time
{way}
packed = base64.b64decode(sys.stdin.read())
try:
    times = []
    for _ in range(15):
        began = time.perf_counter(); it = library.loads(packed); times.append(time.perf_counter() - began)
    print(json.dumps([bool({check}), sorted(times)[7] * 1e6]))
except Exception as error:
    print(json.dumps([False, type(error).__name__]))
"""
IMPORT = "import sys, time; began = time.perf_counter(); import {name}; print((time.perf_counter() - began) * 1e3)"


def output_of(command: list[str], text: str) -> str:
    done = subprocess.run([sys.executable, *command], input=text, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def tried(way: str, code: str, value: str, check: str) -> str:
    """One cell of the table: bytes, microseconds to pack and to unpack, or what failed."""
    packed, pack_us = json.loads(output_of(["-"], PACK.format(code=code, way=way, value=value)))
    if packed is None:
        return f"not packed: {pack_us}"
    works, unpack_us = json.loads(output_of(["-c", UNPACK.format(way=way, check=check)], packed))
    if not works:
        return f"not unpacked: {unpack_us if isinstance(unpack_us, str) else 'wrong'}"
    return f"{len(base64.b64decode(packed)):,} B {pack_us:,.0f}/{unpack_us:,.0f} us"


def main() -> None:
    print(f"{'':32}" + "".join(f"{way:>32}" for way in WAYS))
    for name, code, value, check in CASES:
        cells = (tried(way, code, value, check) for way in WAYS.values())
        print(f"{name:32}" + "".join(f"{cell:>32}" for cell in cells), flush=True)
    for name in ("cloudpickle", "dill"):
        times = sorted(float(output_of(["-c", IMPORT.format(name=name)], "")) for _ in range(5))
        print(f"import {name}: {times[2]:.0f} ms")


if __name__ == "__main__":
    main()
