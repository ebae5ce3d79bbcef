"""How a process waits for news: looks for a while if that has lately paid, then parks its bell and sleeps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .bell import Bell, now_ns
from .contention import Contention

# A wait this short is cheaper spun than slept: the kernel's wake-up costs 26 to 90 µs.
LONGEST_SPIN_NS = 150_000
# A wait that was slept through holds the wake-ups of both sides: had both been looking it would have been shorter, so
# from such a wait on it may be worth a try.
_WORTH_A_TRY_NS = 3 * LONGEST_SPIN_NS
# The share of spins, an average that forgets, that must lately have seen news: from a fifth on what they save outweighs
# what they burn, above that for the sake of others who want the core.
_PAYS_FROM = 0.4
_FORGETS = 4
# So many short sleeps in turn are worth a try, more after each try that was in vain.
_FIRST_TRY_AFTER, _LAST_TRY_AFTER = 4, 256


class AdaptiveWait:
    """Used by everybody who waits. One thread at a time.

    It spins only while spins have lately seen news, tries that again now and then while sleeps are short, and does not
    spin while runnable threads outnumber the cores. `spins` counts the waits that ended while spinning; parks and wakes
    are the bell's.
    """

    def __init__(self, bell: Bell, *, may_spin: bool, contention: Contention | None = None) -> None:
        self.bell = bell
        self.may_spin = may_spin
        self._contention = contention or Contention()
        self._paying = 0.5
        self._short_sleeps = 0
        self._try_after = _FIRST_TRY_AFTER
        self._parked_ns = 0
        self.spins = 0

    @property
    def pays(self) -> bool:
        """Whether spins have lately seen news, or may be worth a try."""
        return self.may_spin and (self._paying > _PAYS_FROM or self._short_sleeps >= self._try_after)

    def spin_ns(self, now: int) -> int:
        """For how long to look before parking."""
        if not self.pays or self._contention.is_there(now):
            return 0
        return LONGEST_SPIN_NS

    def spun(self, *, in_vain: bool) -> None:
        """Tells how a spin ended: this is what it learns from."""
        if in_vain:
            if self._paying <= _PAYS_FROM:
                self._try_after = min(2 * self._try_after, _LAST_TRY_AFTER)
            self._paying -= self._paying / _FORGETS
        else:
            self.spins += 1
            self._paying = max(self._paying, _PAYS_FROM) + (1 - self._paying) / _FORGETS
            self._try_after = _FIRST_TRY_AFTER
        self._short_sleeps = 0

    def slept(self, nanoseconds: int) -> None:
        """Tells how long a sleep took."""
        self._short_sleeps = self._short_sleeps + 1 if nanoseconds < _WORTH_A_TRY_NS else 0

    def spin(self, has_news: Callable[[], Any], until_ns: int = 0) -> bool:
        """Looks for news for as long as that pays, and (unless 0) not beyond `until_ns`; True if there was any."""
        started = now = now_ns()
        window = self.spin_ns(started)
        if not window:
            return False
        end = min(started + window, until_ns) if until_ns else started + window
        while now < end:
            if has_news():
                self.spun(in_vain=False)
                return True
            now = now_ns()
        self.spun(in_vain=True)
        return False

    def park(
        self,
        reasons: int,
        has_news: Callable[[], Any],
        sleep: Callable[[float | None], Any],
        longest_s: float | None = None,
    ) -> Any:
        """Sleeps until somebody rings, by `sleep`, which is called with the most seconds that it may take.

        `sleep` returns when the bell's descriptor is readable, the time is over, or for reasons of the caller's: its
        peer has died (a descriptor that closes), or it is told to end. It is called also where there is news, with 0.
        What it returns is returned.
        """
        longest_s = self.begin_park(reasons, has_news, longest_s)
        try:
            return sleep(longest_s)
        finally:
            self.end_park()

    def begin_park(self, reasons: int, has_news: Callable[[], Any], longest_s: float | None = None) -> float | None:
        """Announces a sleep and looks once more; returns for how many seconds it may last: 0 where there is news.

        For those who sleep where they cannot be called from here, such as in somebody else's event loop.
        """
        self._parked_ns = now_ns()
        fenced = self.bell.park(reasons)
        if has_news():
            return 0.0
        if fenced is None or longest_s is None:
            return longest_s if fenced is None else fenced
        return min(fenced, longest_s)

    def end_park(self) -> None:
        """Takes the announcement back."""
        self.bell.unpark()
        self.slept(now_ns() - self._parked_ns)

    @property
    def contended(self) -> int:
        """How often somebody else needed the core."""
        return self._contention.found
