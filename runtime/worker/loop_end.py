"""The end of an event loop: its tasks and generators end while all that they use is still there.

What is left suspended when Python takes itself down is closed in the middle of that, when half of its own modules are
gone: asyncio's futures then crash.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time

logger = logging.getLogger("slabwire")

# For cleaning up after a cancel. Of the 5 s that a worker has to stop.
END_WITHIN_S = 1.5


async def end_tasks(within_s: float = END_WITHIN_S) -> bool:
    """Cancels all other tasks of the running loop, and those that they begin meanwhile, and closes its asynchronous
    generators. Whether all have ended; those that have not are named in the log.
    """
    until_s = time.monotonic() + within_s
    own = asyncio.current_task()
    cancelled: set[asyncio.Task[object]] = set()
    while (tasks := asyncio.all_tasks() - {own}) and time.monotonic() < until_s:
        for task in tasks - cancelled:
            task.cancel()
        cancelled |= tasks
        await asyncio.wait(tasks, timeout=until_s - time.monotonic(), return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        logger.error("%s was cancelled and did not end within %g s", task.get_coro(), within_s)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(max(0.1, until_s - time.monotonic())):
            await asyncio.get_running_loop().shutdown_asyncgens()
            return not tasks
    logger.error("an asynchronous generator was closed and did not end within %g s", within_s)
    return False
