"""Log lines of our own processes: a timestamp in UTC, the level, the text."""

from __future__ import annotations

import logging
import sys
import time


def configure_logging() -> None:
    """Sends log records to standard error, which the supervisor points at a file. Only in processes of our own."""
    formatter = logging.Formatter("%(asctime)sZ %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%S")
    formatter.converter = time.gmtime
    formatter.default_msec_format = "%s.%03d"
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    logging.basicConfig(level=logging.INFO, handlers=[handler])
