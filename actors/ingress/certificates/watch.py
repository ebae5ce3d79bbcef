"""Looks after the certificates of an ingress: new ones are taken while it runs, and none that will not do."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from .certificate import Certificate, CertificateError, generation_of
from .kept_certificates import KeptCertificates
from .source import CertificateSource, Look

logger = logging.getLogger("slabwire")

# How long a new certificate may wait to be seen. A look takes the processor for less than a millisecond.
LOOK_EVERY_S = 1.0
# How long dates and what else is to be seen now and then may wait, where no file has changed.
ROUSE_EVERY_S = 10.0
# Files that have looked the same for so long are not being written any more.
SETTLED_AFTER_S = 0.2
# As long before the end as there is still time to get a new one.
WARNED_BEFORE = timedelta(days=14)

Take = Callable[[Sequence[Certificate]], None]
# Told of new certificates: whether they were taken.
Came = Callable[[bool], object]


class CertificateWatch:
    """The certificates in use, their generation, and what is wrong with those that lie ready.

    It looks at the files again and again, and does not ask the kernel for events of the directory (inotify): a look
    also sees what comes over NFS, through a chain of links, or with a mount in the directory's place. Files that look
    new are read once they have settled, and used if all of them are in order; until then, and where they are not, the
    ones in use go on. Each process of an ingress does this by itself: they read the same files, and call what they
    have read by the same name. What is used is also kept, for a process that starts anew where the files will not do.
    `looked` is called now and then, and whenever files have changed.

    Raises CertificateError if the source has none that can be used, and none are kept. `start` and `stop` are called on
    one running loop.
    """

    def __init__(
        self,
        source: CertificateSource,
        kept: KeptCertificates | None = None,
        came: Came | None = None,
        looked: Callable[[], object] = lambda: None,
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._source = source
        self._kept = kept
        self._came = came or (lambda _: None)
        self._looked = looked
        self._clock = clock
        self.refusal = ""  # why what lies there now is not taken
        self._taken = self._last = source.look()
        self.certificates: tuple[Certificate, ...] = ()
        self.generation = ""
        self.loaded = clock()
        self.swaps = 0
        self._days_warned: int | None = None
        self._task: asyncio.Task[None] | None = None
        self._is_over = threading.Event()
        try:
            self._use(source.read())
        except CertificateError as error:
            self.fall_back(error)

    def fall_back(self, error: CertificateError) -> None:
        """Takes those that are kept, since the ones that were read cannot be used. Raises the error where none are."""
        kept = self._kept.read() if self._kept is not None else ()
        if not kept:
            raise error
        logger.error("the certificates of the process before this one go on: %s", error)
        self._came(False)
        self.refusal = str(error)
        self._use(kept)

    def start(self, take: Take) -> None:
        """Begins to watch, once the certificates are in use. `take` is called with new ones: if it raises
        CertificateError, they are not used.
        """
        logger.info("certificates, generation %s: %s", self.generation, _listed(self.certificates))
        self._warn()
        self._keep()
        self._task = asyncio.create_task(self._watch(take))

    async def stop(self) -> None:
        """Watches no more."""
        self._is_over.set()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def describe(self) -> dict[str, Any]:
        """For people: {"loaded", "swaps", "days_left", "refusal"}: when those in use were taken, how often others were
        since the start of this process, the days that are left, and why what lies there now is not used, or None.
        """
        return {
            "loaded": self.loaded.isoformat(),
            "swaps": self.swaps,
            "days_left": self._time_left().days,
            "refusal": self.refusal or None,
        }

    async def _watch(self, take: Take) -> None:
        settled, fault = True, ""
        try:
            while True:
                try:
                    look = await asyncio.to_thread(self._next_look, settled)
                    settled, self._last = look == self._last, look
                    if settled and (look != self._taken or self.refusal):
                        await self._try(look, take)
                    self._warn()
                    self._looked()
                except Exception as error:  # what is in use goes on, and so does the watch
                    if str(error) != fault:
                        logger.exception("the certificates' files were not looked at; it is tried again")
                    fault = str(error)
        finally:
            self._is_over.set()  # a process that ends waits for the thread

    def _next_look(self, settled: bool) -> tuple[Look, ...]:
        """Waits for one that is worth the loop's attention. In a thread: a file system that hangs holds up nobody, and
        a loop that sleeps is not woken for nothing.
        """
        until_s = time.monotonic() + ROUSE_EVERY_S
        while True:
            is_over = self._is_over.wait(LOOK_EVERY_S if settled else SETTLED_AFTER_S)
            look, is_known = self._source.look(), settled and not self.refusal
            if is_over or time.monotonic() >= until_s:
                return look
            if not is_known or look != self._last or look != self._taken:
                return look

    async def _try(self, look: tuple[Look, ...], take: Take) -> None:
        reason, self._taken = _reason(self._taken, look), look
        try:
            self._swap(await asyncio.to_thread(self._source.read), take, reason)
        except CertificateError as error:
            self._refuse(str(error))
        except Exception as error:  # whatever it is, those in use go on, and so does the watch
            self._refuse(f"{type(error).__name__}: {error}")
        else:
            self.refusal = ""

    def _swap(self, fresh: Sequence[Certificate], take: Take, reason: str) -> None:
        """The line in the log is the record of the swap: what, instead of what, and why."""
        generation = generation_of(fresh)
        if generation == self.generation:
            if self.refusal:
                logger.info("the certificates of generation %s are in order again", generation)
            return
        take(fresh)
        logger.info(
            "certificates swapped, generation %s after %s, since %s: %s; before: %s",
            generation,
            self.generation,
            reason,
            _listed(fresh),
            _listed(self.certificates),
        )
        self._use(fresh)
        self._keep()
        self.swaps += 1
        self._came(True)

    def _use(self, certificates: Sequence[Certificate]) -> None:
        self.certificates, self.generation = tuple(certificates), generation_of(certificates)
        self.loaded = self._clock()

    def _keep(self) -> None:
        """What the engine has taken, and nothing before."""
        if self._kept is not None:
            self._kept.save(self.certificates)

    def _refuse(self, why: str) -> None:
        """Told once, however often it is tried again."""
        if why != self.refusal:
            logger.error("new certificates are not taken, generation %s goes on: %s", self.generation, why)
            self._came(False)
        self.refusal = why

    def _warn(self) -> None:
        """Once a day, and in every process: each may have failed to take a new one."""
        left = self._time_left()
        days = left.days if left < WARNED_BEFORE else None
        if days is not None and days != self._days_warned:
            first = min(self.certificates, key=lambda each: each.not_after)
            if days >= 0:
                logger.warning("the certificate %s ends on %s", first.chain, first.not_after)
            else:
                logger.error("the certificate %s ended on %s: clients refuse it", first.chain, first.not_after)
        self._days_warned = days

    def _time_left(self) -> timedelta:
        return min(each.not_after for each in self.certificates) - self._clock()


def _listed(certificates: Sequence[Certificate]) -> str:
    return " | ".join(map(str, certificates))


def _reason(before: tuple[Look, ...], now: tuple[Look, ...]) -> str:
    changed = sorted({path for path, *_ in set(before) ^ set(now)})
    return f"{', '.join(changed)} changed" if changed else "what was wrong with them has passed"
