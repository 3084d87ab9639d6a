"""Server-sent events out of bytes, sans-IO: https://html.spec.whatwg.org/multipage/server-sent-events.html.

Why our own: the `openai` package's decoder has no bound on a line and loses the first event after a byte order mark,
and the line splitting of HTTP clients takes U+2028 inside JSON for an end of line. Only the data of events is kept;
names, ids and retry times mean nothing to Chat Completions.
"""

from __future__ import annotations

from collections.abc import Iterator

EVENT_BYTES_MAX = 32 * 1024 * 1024
BOM = b"\xef\xbb\xbf"


class EventTooLarge(ValueError):
    """One event is larger than EVENT_BYTES_MAX."""


class SseDecoder:
    """Feed it bytes as they come, in pieces of any size; it gives back the data of each event that is complete."""

    def __init__(self, limit: int = EVENT_BYTES_MAX) -> None:
        self._limit = limit
        self._line = bytearray()
        self._data: list[bytes] = []
        self._size = 0
        self._at_start = True
        self._after_cr = False

    def feed(self, chunk: bytes) -> Iterator[str]:
        """The data of the events that this piece completes. Raises ValueError for bad UTF-8 or an endless event."""
        if self._after_cr and chunk:
            chunk = chunk.removeprefix(b"\n")  # the other half of a CRLF that was cut between pieces
            self._after_cr = False
        self._after_cr = chunk.endswith(b"\r") or (self._after_cr and not chunk)
        *lines, rest = chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        for line in lines:
            self._line += line
            whole = bytes(self._line)
            self._line.clear()
            yield from self._take(whole)
        self._line += rest
        if len(self._line) + self._size > self._limit:
            raise EventTooLarge(f"an event has more than {self._limit:,} bytes")

    def finish(self) -> Iterator[str]:
        """The data of an event that the end of the stream left without its blank line: providers forget it."""
        whole = bytes(self._line)
        self._line.clear()
        yield from self._take(whole)
        yield from self._take(b"")

    def _take(self, line: bytes) -> Iterator[str]:
        if self._at_start:
            line = line.removeprefix(BOM)
            self._at_start = False
        if not line:
            if self._data:
                data = b"\n".join(self._data)
                self._data.clear()
                self._size = 0
                yield data.decode("utf-8")
            return
        name, _, value = line.partition(b":")
        if name == b"data":
            self._size += len(value)
            self._data.append(value.removeprefix(b" "))
