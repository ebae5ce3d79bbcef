"""Transparent huge pages for slabs, where an actor asks for them and the kernel gives them."""

from __future__ import annotations

import contextlib
import logging
import mmap
from collections.abc import Callable
from pathlib import Path

from .cgroup import read_text
from .segment import Segment

logger = logging.getLogger("slabwire")

_SETTINGS = "sys/kernel/mm/transparent_hugepage"


class HugePages:
    """Takes the pages of segments as huge ones. `complain` is told once if the kernel gives none; work goes on then."""

    def __init__(self, complain: Callable[[str], None] = logger.warning, root: Path = Path("/")) -> None:
        self._complain: Callable[[str], None] | None = complain
        self._root = root

    def reserve(self, segment: Segment) -> None:
        """Owner, while it has the descriptor: takes all pages. Raises OutOfMemory."""
        with contextlib.suppress(OSError):  # a kernel that is built without
            segment.mapping.madvise(mmap.MADV_HUGEPAGE)
        # The advice is the mapping's: only pages that are taken by touching it can be huge, not those of fallocate.
        segment.populate()
        segment.reserve()
        # Two of them: wherever a mapping begins, a whole one lies in it.
        if self._complain is not None and segment.nbytes >= 2 * page_nbytes(self._root) and not huge_nbytes(segment):
            why = obstacle(self._root) or "the kernel has no memory in pieces that large"
            self._complain(f"huge pages were asked for, but {why}; memory lies in small pages")
            self._complain = None


def page_nbytes(root: Path = Path("/")) -> int:
    """The size of a huge page."""
    try:
        return int((root / _SETTINGS / "hpage_pmd_size").read_text())
    except (OSError, ValueError):
        return 2 << 20


def obstacle(root: Path = Path("/")) -> str | None:
    """Why shared memory that asks for huge pages gets none; None where the kernel's settings allow it."""
    general = root / _SETTINGS / "shmem_enabled"
    # Kernels from 6.10 on have a setting for each size, too, which says "inherit" unless somebody changed it.
    special = root / _SETTINGS / f"hugepages-{page_nbytes(root) // 1024}kB" / "shmem_enabled"
    chosen = _chosen(general)
    if chosen is None:
        return "this kernel has none for shared memory"
    setting = special if chosen != "deny" and _chosen(special) not in (None, "inherit") else general
    chosen = _chosen(setting)
    return f"{setting} says {chosen!r}" if chosen in ("never", "deny") else None


def _chosen(setting: Path) -> str | None:
    """The word in brackets."""
    return next((each.strip("[]") for each in read_text(setting).split() if each.startswith("[")), None)


def huge_nbytes(segment: Segment) -> int:
    """How much of a mapping lies in huge pages."""
    start = f"{segment.address:x}-"
    is_ours, found = False, 0
    with open("/proc/self/smaps") as smaps:
        for line in smaps:
            name, _, rest = line.partition(" ")
            if not name.endswith(":"):
                is_ours = name.startswith(start)
            elif is_ours and name in ("ShmemPmdMapped:", "FilePmdMapped:"):
                found += int(rest.split()[0]) * 1024
    return found
