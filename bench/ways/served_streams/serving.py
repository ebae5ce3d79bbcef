"""The main process of a server of other people, which ends with its parent.

python -m slabwire.bench.ways.served_streams.serving MODULE SERVED PARENT

The module has the function `serve`; its name is relative to this package.
"""

from __future__ import annotations

import json
import sys
from importlib import import_module

from ....runtime.host.descriptors import raise_limit
from ....runtime.host.lifeline import die_with_parent
from .asgi_server import Served


def main() -> None:
    module, served, parent = sys.argv[1], Served(**json.loads(sys.argv[2])), int(sys.argv[3])
    die_with_parent(parent)
    raise_limit()
    import_module(module, __package__).serve(served)


if __name__ == "__main__":
    main()
