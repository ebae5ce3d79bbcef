"""Log lines of our own processes: a timestamp in UTC, the level, the text."""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime


class _Utc(logging.Formatter):
    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: ARG002, N802
        return datetime.fromtimestamp(record.created, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def configure_logging(*, is_stamped: bool = False) -> None:
    """Sends log records to standard error, which the supervisor points at a file. Only in processes of our own.

    `is_stamped`: what is written there gets its time anyway.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Utc("%(levelname)s %(message)s" if is_stamped else "%(asctime)s %(levelname)s %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
