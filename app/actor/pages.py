"""Old pages of one log, read once and shared: a thousand readers that come back at once cost one read and one text.

Bounded by bytes, oldest out first. What supersedes pieces empties it, for a page that holds them is no longer what a
replay should show; a page that was being read meanwhile is handed out, but not kept. It is emptied when the superseding
event is published, which is after its commit: between the two a page may be of either side, so each says of which.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import NamedTuple

from app.store.event_log import SEPARATOR, Page
from app.wire.frames import events_frame, split

PAGES_BYTES_MAX = 4_194_304
"""Bytes of frames that a live conversation keeps for readers far behind."""


class Frame(NamedTuple):
    """An `events` frame: its `through`, its text, and the head of the log when it was read."""

    through: int
    text: str
    head: int


class Pages:
    """`read` gives the page of the log after a cursor; it may raise what a store raises. Frames have `bytes_max`."""

    def __init__(self, read: Callable[[int], Awaitable[Page]], bytes_max: int) -> None:
        self._read = read
        self._bytes_max = bytes_max
        self._frames: dict[int, Frame] = {}
        self._reading: dict[int, asyncio.Task[Frame]] = {}
        self._bytes = 0
        self._generation = 0

    async def after(self, cursor: int, head: int = 0) -> Frame:
        """The frame that follows a cursor, whoever asked for it first; as the log was at `head` or later."""
        if (frame := self._frames.get(cursor)) is not None and frame.head >= head:
            return frame
        frame = await self._shared(cursor)
        if frame.head < head:  # it was being read already; what is read from now on is new enough
            frame = await self._shared(cursor)
        return frame

    async def _shared(self, cursor: int) -> Frame:
        if (reading := self._reading.get(cursor)) is None:
            reading = self._reading[cursor] = asyncio.create_task(self._load(cursor, self._generation))
            reading.add_done_callback(partial(self._read_over, cursor))
        await asyncio.wait({reading})
        return reading.result()

    def clear(self) -> None:
        """Something that may be in here has been superseded."""
        self._frames.clear()
        self._reading.clear()
        self._bytes = 0
        self._generation += 1

    def _read_over(self, cursor: int, reading: asyncio.Task[Frame]) -> None:
        if self._reading.get(cursor) is reading:
            del self._reading[cursor]

    async def _load(self, cursor: int, generation: int) -> Frame:
        page = await self._read(cursor)
        through = page.through
        text = events_frame(cursor, through, (events.replace(SEPARATOR, ",") for _, events in page.parts))
        if len(text.encode()) > self._bytes_max:  # a store counts characters of events, a frame its bytes
            count = split(texts := page.texts, self._bytes_max)
            through = page.through if count == len(texts) else page.seqs[count - 1]
            text = events_frame(cursor, through, texts[:count])
        frame = Frame(through, text, page.head)
        if generation == self._generation and through < page.head:  # the last page is still growing
            self._forget(cursor)
            self._frames[cursor] = frame
            self._bytes += len(frame.text)
            while self._bytes > PAGES_BYTES_MAX:
                self._forget(next(iter(self._frames)))
        return frame

    def _forget(self, cursor: int) -> None:
        if (frame := self._frames.pop(cursor, None)) is not None:
            self._bytes -= len(frame.text)
