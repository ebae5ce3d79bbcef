"""The client's end of a stream: one whose tokens are read, or one whose records are counted."""

from __future__ import annotations

import re
import socket
import ssl
from time import monotonic_ns

from .token_records import TokenRecords, WrongRecord

_RECEIVE_NBYTES = 1 << 14
# The event of an item of `many_streams/item.py`: when its step began, and whose it is.
_TOKEN = re.compile(rb'data: \{[^\n]*"(\d{20}) (\d{6})\\n"[^\n]*\}\n\n')
_CHUNK_ENDS = re.compile(rb"[0-9a-fA-F\r\n]*")


class TimedStream:
    """It is decrypted: each token's latency, and the gaps between them, in microseconds."""

    def __init__(self, secured: ssl.SSLSocket, number: int) -> None:
        self.socket = secured
        self.is_broken = False
        self.event_nbytes = 0  # of the last token's event
        self.plain_nbytes = 0
        self._mark = b"%06d" % number
        self._rest = b""
        self._made_ns = 0
        self.reset()

    def reset(self) -> None:
        """Forgets what was measured."""
        self.tokens = self.wrong = self.came_ns = 0
        self.latencies_us: list[float] = []
        self.gaps_us: list[float] = []
        self._rest = b""

    def take(self) -> None:
        """All that is there."""
        try:
            while received := self.socket.recv(_RECEIVE_NBYTES):
                self._note(received, monotonic_ns())
        except ssl.SSLWantReadError:
            return
        except OSError:  # an alert, too
            pass
        self.is_broken = True

    def _note(self, received: bytes, now_ns: int) -> None:
        self.plain_nbytes += len(received)
        data, end = self._rest + received, 0
        for found in _TOKEN.finditer(data):
            made_ns = int(found[1])
            is_right = found[2] == self._mark and made_ns > self._made_ns
            self.wrong += not (is_right and _CHUNK_ENDS.fullmatch(data, end, found.start()))
            self.tokens += 1
            self.event_nbytes = len(found[0])
            self.latencies_us.append((now_ns - made_ns) / 1e3)
            if self.came_ns:
                self.gaps_us.append((now_ns - self.came_ns) / 1e3)
            self._made_ns, self.came_ns, end = made_ns, now_ns, found.end()
        self._rest = data[end:]

    @property
    def is_whole(self) -> bool:
        """Whether nothing has come but tokens."""
        return _CHUNK_ENDS.fullmatch(self._rest) is not None


class CountedStream:
    """Its tokens are counted by the lengths of its records, once somebody has said what a token is."""

    def __init__(self, secured: ssl.SSLSocket) -> None:
        # Records end where the answer's beginning ended, for OpenSSL reads no further than it has to.
        self._socket = socket.socket(fileno=secured.detach())
        self._socket.setblocking(False)
        self._records: TokenRecords | None = None
        self._rest = b""
        self.nbytes = 0
        self.is_broken = False
        self.tokens = self.open_nbytes = 0

    def count(self, records: TokenRecords) -> None:
        """Counts from now on; a record begins with what comes next."""
        self._records, self._rest = records, b""
        self.tokens = self.open_nbytes = 0

    def take(self) -> None:
        """All that is there."""
        receive = self._socket.recv
        try:
            while received := receive(_RECEIVE_NBYTES):
                self.nbytes += len(received)
                if self._records is not None:
                    self._note(self._rest + received, self._records)
                if len(received) < _RECEIVE_NBYTES:
                    return
        except BlockingIOError:
            return
        except (OSError, WrongRecord):
            pass
        self.is_broken = True

    def _note(self, data: bytes, records: TokenRecords) -> None:
        tokens, self.open_nbytes, whole = records.count(data, self.open_nbytes)
        self.tokens += tokens
        self._rest = data[whole:]

    @property
    def is_whole(self) -> bool:
        """Whether nothing has come but whole tokens."""
        return not (self._rest or self.open_nbytes)
