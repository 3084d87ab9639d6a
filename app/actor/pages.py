"""Old pages of one log, read once and shared: a thousand readers that come back at once cost one read and one text.

Bounded by bytes, oldest out first. What supersedes pieces empties it, for a page that holds them is no longer what a
replay should show; a page that was being read meanwhile is handed out, but not kept. It is emptied when the superseding
event is published, which is after its commit: between the two a page may be of either side, so each says of which.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

from app.store.event_log import SEPARATOR, Page
from app.wire.frames import events_frame, split

PAGES_BYTES_MAX = 4_194_304
"""Bytes of frames that a live conversation keeps for readers far behind."""

READ_FRAMES = 4
"""So many frames' events are read from the log at once: a hop to the store costs about as much as a frame."""

FILLED_PERCENT = 94
"""Of a frame's bytes that its events may take; commas and the envelope need the rest."""

Part = tuple[Sequence[int], str]


class Frame(NamedTuple):
    """An `events` frame: its `through`, its text, and the head of the log when it was read."""

    through: int
    text: str
    head: int


class Pages:
    """`read` gives the page of the log after a cursor, of `READ_FRAMES` frames or about; it may raise what a store
    raises. Frames have `bytes_max`.
    """

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
        """Reads on from a cursor; frames beyond the first one are kept for whoever comes that far."""
        page = await self._read(cursor)
        frames = dict(self._frames_of(page))
        if generation == self._generation:
            for after, frame in frames.items():
                if frame.through < page.head:  # the last one is still growing
                    self._keep(after, frame)
        return frames[cursor]

    def _frames_of(self, page: Page) -> Iterator[tuple[int, Frame]]:
        """The frames of a page, each with the cursor that it follows."""
        after, parts, size = page.after, list[Part](), 0
        for part in page.parts:
            if parts and size + len(part[1]) > self._bytes_max * FILLED_PERCENT // 100:
                through = parts[-1][0][-1]
                yield from self._fitting(after, through, parts, page.head)
                after, parts, size = through, [], 0
            parts.append(part)
            size += len(part[1])
        yield from self._fitting(after, page.through, parts, page.head)

    def _fitting(self, after: int, through: int, parts: list[Part], head: int) -> Iterator[tuple[int, Frame]]:
        """One frame, or several: a store counts the characters of events, a frame its bytes."""
        text = events_frame(after, through, (events.replace(SEPARATOR, ",") for _, events in parts))
        if (text.isascii() and len(text) <= self._bytes_max) or len(text.encode()) <= self._bytes_max:
            yield after, Frame(through, text, head)
            return
        seqs = [seq for numbers, _ in parts for seq in numbers]
        texts = [text for _, events in parts for text in events.split(SEPARATOR)]
        while texts:
            count = split(texts, self._bytes_max)
            to = seqs[count - 1] if count < len(texts) else through
            yield after, Frame(to, events_frame(after, to, texts[:count]), head)
            after, seqs, texts = to, seqs[count:], texts[count:]

    def _keep(self, cursor: int, frame: Frame) -> None:
        self._forget(cursor)
        self._frames[cursor] = frame
        self._bytes += len(frame.text)
        while self._bytes > PAGES_BYTES_MAX:
            self._forget(next(iter(self._frames)))

    def _forget(self, cursor: int) -> None:
        if (frame := self._frames.pop(cursor, None)) is not None:
            self._bytes -= len(frame.text)
