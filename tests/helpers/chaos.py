"""Processes of all kinds, killed and stopped at random moments, and what became of every call and every message.

A client that is killed is followed by another. What a client was answered must come to the end of its side branch.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import chaos_client
import slabwire
from chaos_client import ITEMS
from slabwire.runtime.clients.control import Control
from slabwire.runtime.control.verbs import OpenGateway
from waiting import wait_until

# With what a call may end when processes die under it. All else is a loss.
ALLOWED = frozenset(("interrupted", "dead_letter", "disconnected", "overloaded"))
# So many numbers has each client.
NUMBERS_EACH = 10_000_000
# A handler is run again when its process dies; what its predecessor had done stays done. So of these kinds a letter may
# come twice: the call that `waits` makes is made again.
AT_LEAST_ONCE = frozenset(("waits",))


@dataclass
class Tally:
    """What became of all calls, by the diaries of the clients and by what came to the end of the side branch."""

    sent: int = 0
    answered: int = 0
    cut: int = 0  # their clients died before they knew
    errors: Counter[str] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    twice: list[str] = field(default_factory=list)
    owed: int = 0  # letters of answered calls
    missing: list[str] = field(default_factory=list)
    side_twice: list[str] = field(default_factory=list)
    side_again: int = 0  # letters that came again, as they may

    def faults(self) -> dict[str, list[str]]:
        names = ("lost", "wrong", "twice", "missing", "side_twice")
        return {name: faults[:10] for name in names if (faults := getattr(self, name))}


class Chaos:
    """Over a running graph of the storm with side branches, and a folder for diaries. One thread."""

    def __init__(self, running: slabwire.Running, folder: Path, seed: int, clients: int = 4) -> None:
        self._running = running
        self._folder = folder
        self._dice = random.Random(seed)
        self._clients: dict[int, subprocess.Popen[bytes]] = {}
        self._started = 0
        self._wanted = clients
        self._stopped: dict[int, float] = {}  # by pid: until when it stands still
        self._killed: set[int] = set()  # the clients that were
        self._fallen: list[str] = []
        self.blows: Counter[str] = Counter()

    def run(self, seconds: float, every_s: float) -> Tally:
        """Strikes for so long from when all clients are at work, lets everybody finish, and counts."""
        try:
            self._fill_up()
            wait_until(lambda: all("answered" in self._diary(each) for each in self._clients))
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                self._fill_up()
                self._let_go_on(time.monotonic())
                self._strike()
                time.sleep(self._dice.expovariate(1 / every_s))
            self._let_go_on(float("inf"))
            (self._folder / "stop").touch()
            for number, client in list(self._clients.items()):
                client.wait()
                self._ended(number, client)
        finally:
            self._let_go_on(float("inf"))
            for client in self._clients.values():
                client.kill()
                client.wait()
        return self._tally()

    def report(self, tally: Tally) -> str:
        blows = ", ".join(f"{count} {what}" for what, count in sorted(self.blows.items()))
        errors = ", ".join(f"{count} {code}" for code, count in sorted(tally.errors.items())) or "none"
        return (
            f"blows: {blows}\n"
            f"calls: {tally.sent} sent, {tally.answered} answered, {len(tally.lost)} lost, {len(tally.twice)} answered "
            f"twice, {len(tally.wrong)} wrong, {tally.cut} whose client died first; errors: {errors}\n"
            f"side branches: {tally.owed} letters of answered calls, {len(tally.missing)} missing, "
            f"{len(tally.side_twice)} twice along an edge, {tally.side_again} handled again by a successor"
        )

    def _diary(self, client: int) -> str:
        path = self._folder / f"diary-{client}"
        return path.read_text() if path.exists() else ""

    # -- blows -------------------------------------------------------------------------------------------------------

    def _fill_up(self) -> None:
        for number, client in list(self._clients.items()):
            if client.poll() is not None:
                self._ended(number, client)
        while len(self._clients) < self._wanted:
            self._start_client()

    def _ended(self, number: int, client: subprocess.Popen[bytes]) -> None:
        del self._clients[number]
        if client.returncode == -signal.SIGKILL:
            self._killed.add(number)
        elif client.returncode:
            self._fallen.append(f"client {number} ended with status {client.returncode}")

    def _start_client(self) -> None:
        number = self._started
        self._started += 1
        how = ("async", "threads")[number % 2]
        where = self._running.name if number // 2 % 2 == 0 else f"ipc://{self._running.directory}/gateway"
        diary, first = self._folder / f"diary-{number}", NUMBERS_EACH * (number + 1)
        command = [sys.executable, chaos_client.__file__, how, where, str(diary), str(first)]
        self._clients[number] = subprocess.Popen([*command, str(self._folder / "stop")])

    def _strike(self) -> None:
        """Kills or stops one process."""
        what = self._dice.choices(("worker", "client", "gateway", "nursery"), (8, 4, 1, 1))[0]
        try:
            pid = self._victim(what)
        except slabwire.Disconnected:
            self.blows["nobody, for the supervisor did not say who there is"] += 1
            return
        if not pid or pid in self._stopped:
            return
        manner = self._dice.choice(("killed", "stopped", "stopped, then killed"))
        self.blows[f"{what} {manner}"] += 1
        try:
            if manner == "killed":
                os.kill(pid, signal.SIGKILL)
            else:
                os.kill(pid, signal.SIGSTOP)
                until = time.monotonic() + self._dice.uniform(0.02, 1.5)
                self._stopped[pid] = until if manner == "stopped" else -until
        except ProcessLookupError:
            pass  # it has died meanwhile

    def _victim(self, what: str) -> int:
        if what == "client":
            return self._dice.choice(list(self._clients.values())).pid
        if what == "gateway":
            with Control(self._running.name) as control:
                return int(control.request(OpenGateway())["pid"] or 0)
        status = self._running.status()
        if what == "nursery":
            return int(status["nursery"]["pid"] or 0)
        pids = [int(each["pid"]) for each in status["workers"] if each["pid"]]
        return self._dice.choice(pids) if pids else 0

    def _let_go_on(self, now: float) -> None:
        for pid, until in list(self._stopped.items()):
            if abs(until) <= now:
                del self._stopped[pid]
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT if until > 0 else signal.SIGKILL)

    # -- what became of it -------------------------------------------------------------------------------------------

    def _tally(self) -> Tally:
        tally = Tally(lost=list(self._fallen))
        kinds: dict[int, str] = {}
        for number in range(self._started):
            self._read_diary(number, tally, kinds)
        self._await_sides(tally, kinds)
        return tally

    def _read_diary(self, client: int, tally: Tally, kinds: dict[int, str]) -> None:
        outcomes: dict[int, list[str]] = defaultdict(list)
        of: dict[int, str] = {}
        for line in self._diary(client).splitlines():
            number, kind, what = line.split(" ", 2)
            of[int(number)] = kind
            if what != "sent":
                outcomes[int(number)].append(what)
        tally.sent += len(of)
        for letter, kind in of.items():
            if outcomes[letter]:
                self._judge(letter, kind, outcomes[letter], tally, kinds)
            elif client in self._killed:
                tally.cut += 1
            else:
                tally.lost.append(f"{kind} {letter}: its client ended and did not know")

    def _judge(self, number: int, kind: str, outcomes: list[str], tally: Tally, kinds: dict[int, str]) -> None:
        what, code = outcomes[0], outcomes[0].split()[1] if outcomes[0].startswith("error") else ""
        if len(outcomes) > 1:
            tally.twice.append(f"{kind} {number}: {outcomes}")
        elif what == "answered":
            tally.answered += 1
            kinds[number] = kind
        elif code in ALLOWED:
            tally.errors[code] += 1
        elif code:
            tally.lost.append(f"{kind} {number}: {what}")
        else:
            tally.wrong.append(f"{kind} {number}: {what}")

    def _await_sides(self, tally: Tally, kinds: dict[int, str]) -> None:
        """Until all that is owed has come, or nothing comes any more."""
        owed = {letter: kind for number, kind in kinds.items() for letter in letters_of(number, kind)}
        tally.owed = len(owed)
        before = -1
        while True:
            came, again, is_whole = self._sides()
            missing = owed.keys() - came.keys()
            if not missing or (len(came) == before and self._is_idle()):
                break
            before = len(came)
            time.sleep(0.5)
        tally.missing = [f"{owed[each]} {each}" for each in sorted(missing)]
        tally.wrong += [f"side {each}" for each, whole in is_whole.items() if not whole]
        tally.side_again = again
        tally.side_twice = [
            f"{owed[each]} {each}: {count} times"
            for each, count in came.items()
            if count > 1 and each in owed and owed[each] not in AT_LEAST_ONCE
        ]

    def _sides(self) -> tuple[Counter[int], int, dict[int, bool]]:
        """How often each letter came for the first time, how many came again, and whether they were whole."""
        came: Counter[int] = Counter()
        is_whole: dict[int, bool] = {}
        again = 0
        path = self._folder / "sides"
        for line in path.read_text().splitlines() if path.exists() else ():
            number, whole, attempt = (int(each) for each in line.split())
            is_whole[number] = is_whole.get(number, True) and bool(whole)
            if attempt == 1 or number not in came:
                came[number] += 1
            else:
                again += 1
        return came, again, is_whole

    def _is_idle(self) -> bool:
        actors: list[dict[str, Any]] = [a for w in self._running.status()["workers"] for a in w["actors"]]
        return not any(each["waiting"] or each["in_flight"] or each["outbox"] for each in actors)


def letters_of(number: int, kind: str) -> Iterator[int]:
    """The letters that an answered call sends along its side branch."""
    yield from range(number, number + (ITEMS if kind in ("again", "once") else 1))
