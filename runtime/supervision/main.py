"""The supervisor's process: `python -m slabwire.runtime.supervision.main --fd N`, started by who runs a graph."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import errno
import socket
import sys

from ..host.descriptors import REMEDY, raise_limit, require_for_graph
from ..host.inherited import put_right
from .spawner import Spawner


def main() -> int:
    """The process. What goes wrong before the graph is ready is told to the owner."""
    put_right()
    raise_limit()
    parser = argparse.ArgumentParser()
    parser.add_argument("--fd", type=int, required=True)
    owner = socket.socket(fileno=parser.parse_args().fd)
    try:
        spawner = Spawner()
    except OSError as error:
        return _give_up(owner, error)
    try:
        return _supervise(owner, spawner)
    finally:
        spawner.close()


def _supervise(owner: socket.socket, spawner: Spawner) -> int:
    # Imported while the fork server imports, too.
    import zmq

    from ...shm import fence
    from ..control.owner import JOBS
    from ..errors import SlabwireError
    from ..host.frames import FrameReader
    from ..logs.log_format import configure_logging
    from ..spec import graph_from_plain
    from .supervisor import run

    configure_logging()
    fence.register()
    try:
        job = JOBS.read(FrameReader(owner).read())
        owner.setblocking(False)
        spec = graph_from_plain(job.spec)
        require_for_graph(spec, listens=job.listen is not None)
        return asyncio.run(run(spec, job, owner, spawner))
    except (SlabwireError, OSError, zmq.ZMQError) as error:
        return _give_up(owner, error)


def _give_up(owner: socket.socket, error: Exception) -> int:
    """The exit status, after the owner was told."""
    from ..control.owner import EVENTS, GraphFailed
    from ..errors import SlabwireError, StartError
    from ..host.frames import write_frame

    if not isinstance(error, SlabwireError):
        is_scarce = getattr(error, "errno", None) in (errno.EMFILE, errno.ENFILE)
        remedy = f"; {REMEDY}" if is_scarce else ""
        error = StartError(f"the supervisor cannot go on: {error}{remedy}")
    with contextlib.suppress(OSError):
        write_frame(owner, EVENTS.document(GraphFailed(str(error), code=error.code)))
    return 1


if __name__ == "__main__":
    sys.exit(main())
