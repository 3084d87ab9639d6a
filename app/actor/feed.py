"""The readable side of a live conversation: its newest records in memory, and frames that all readers share.

A reader is a cursor. What it has not seen is either here, or before `floor` and in `pages` of the log. There is
no queue per reader and nothing to bound: a slow reader gets larger frames of the same events, and the superseding event
instead of superseded pieces. A frame is built once per cursor and head, whoever asks.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable

from app.actor.pages import Pages
from app.actor.records import Record
from app.wire.frames import events_frame, split

FEED_BYTES_MAX = 262_144
"""Bytes of records that a live conversation keeps in memory."""

FRAMES_MAX = 32
"""Frames that are kept for whoever else stands at the same cursor."""


class Feed:
    """Records after `floor`, up to `head`. `closed` is a close code once there is nothing more to come."""

    def __init__(self, log: str, head: int, frame_bytes_max: int, pages: Pages) -> None:
        self.log = log
        self.head = head
        self.floor = head
        self.closed: int | None = None
        self.pages = pages
        self._frame_bytes_max = frame_bytes_max
        self._seqs: list[int] = []
        self._records: list[Record] = []
        self._bytes = 0
        self._frames: dict[int, tuple[int, str]] = {}
        self._wakes: set[Callable[[], None]] = set()

    @property
    def watched(self) -> bool:
        return bool(self._wakes)

    def join(self, wake: Callable[[], None]) -> None:
        """Calls `wake` whenever there may be something to pull, until `leave`."""
        self._wakes.add(wake)

    def leave(self, wake: Callable[[], None]) -> None:
        self._wakes.discard(wake)

    def publish(self, records: Iterable[Record], superseded: frozenset[str], head: int) -> None:
        """Takes in what has been committed and wakes the readers."""
        if superseded:
            self.pages.clear()
        if superseded and any(record.owner in superseded for record in self._records):
            self._records = [record for record in self._records if record.owner not in superseded]
            self._seqs = [record.seq for record in self._records]
            self._bytes = sum(len(record.text) for record in self._records)
        for record in records:
            self._records.append(record)
            self._seqs.append(record.seq)
            self._bytes += len(record.text)
        self.head = head
        self._trim()
        self._frames.clear()
        self._wake()

    def close(self, code: int) -> None:
        """Ends every reader with this close code."""
        self.closed = code
        self._wake()

    def frame(self, after: int) -> tuple[int, str] | None:
        """The next `events` frame after a cursor at or beyond `floor`, and its `through`; None if there is none."""
        if after >= self.head:
            return None
        if (built := self._frames.get(after)) is None:
            start = bisect_right(self._seqs, after)
            end = split([record.text for record in self._records[start:]], self._frame_bytes_max) + start
            through = self.head if end == len(self._records) else self._seqs[end - 1]
            texts = [record.text for record in self._records[start:end]]
            if len(self._frames) >= FRAMES_MAX:
                self._frames.clear()
            built = self._frames[after] = through, events_frame(after, through, texts)
        return built

    def _trim(self) -> None:
        drop = 0
        while self._bytes > FEED_BYTES_MAX:
            self._bytes -= len(self._records[drop].text)
            drop += 1
        if drop:
            self.floor = self._seqs[drop - 1]
            del self._records[:drop], self._seqs[:drop]

    def _wake(self) -> None:
        for wake in list(self._wakes):
            wake()
