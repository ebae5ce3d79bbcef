"""Tokens in TLS 1.3 records, counted without the keys: the length of what a record holds is no secret.

A record is that of RFC 8446, section 5.2; what it holds is the chunked body of RFC 9112, section 7.1.
"""

from __future__ import annotations

_HEADER_NBYTES, _APPLICATION_DATA = 5, 23
# The type of the content, and the tag of every cipher that OpenSSL offers by itself.
_TRAILER_NBYTES = 1 + 16
_FRAME_NBYTES = _HEADER_NBYTES + _TRAILER_NBYTES


class WrongRecord(Exception):
    """What came is no record of application data: the stream is broken."""


class TokenRecords:
    """Counts the tokens of streams whose records mostly have one size.

    `event_nbytes` is the length of each token's event. A chunk of the body may hold several, where they came together:
    the lengths of up to some thirty tokens tell how many they are, however they are put into chunks and records.
    """

    def __init__(self, event_nbytes: int) -> None:
        self._event_nbytes = event_nbytes
        self._header = b""  # of a record that held whole tokens
        self._size = self._held = 0

    def count(self, data: bytes, open_nbytes: int) -> tuple[int, int, int]:
        """How many tokens end in the whole records that `data` begins with, how many bytes then follow the last of
        them, and how long these records are. `open_nbytes` is what the last call gave for that stream.

        Raises WrongRecord.
        """
        if self._size and not open_nbytes and data.startswith(self._header):
            alike = data.count(self._header)
            if alike * self._size == len(data):
                return alike * self._held, 0, len(data)
        return self._walk(data, open_nbytes)

    def _walk(self, data: bytes, open_nbytes: int) -> tuple[int, int, int]:
        tokens = at = 0
        while at + _HEADER_NBYTES <= len(data):
            size = _HEADER_NBYTES + int.from_bytes(data[at + 3 : at + _HEADER_NBYTES], "big")
            if data[at] != _APPLICATION_DATA or size < _FRAME_NBYTES:
                raise WrongRecord
            if at + size > len(data):
                break
            found = self.tokens_in(open_nbytes + size - _FRAME_NBYTES)
            if found and not open_nbytes:
                self._header, self._size, self._held = data[at : at + _HEADER_NBYTES], size, found
            tokens += found
            open_nbytes = 0 if found else open_nbytes + size - _FRAME_NBYTES
            at += size
        return tokens, open_nbytes, at

    def tokens_in(self, nbytes: int) -> int:
        """How many tokens in whole chunks make so many bytes; 0 where none do."""
        tokens, rest = divmod(nbytes, self._event_nbytes)
        least = _around(tokens * self._event_nbytes)  # all in one chunk
        most = max(least, tokens * _around(self._event_nbytes))  # a chunk each
        return tokens if least <= rest <= most else 0


def _around(chunk_nbytes: int) -> int:
    """Bytes of a chunk beside what it holds."""
    return len(b"%x\r\n\r\n" % chunk_nbytes)
