"""A reader: a cursor on a feed, and the frames that bring it forward.

Sans-IO. Replay is a cursor that has not caught up, live is one that has; there is one path for both, so there is no gap
between them. The shell that owns the socket asks for the next frame, sends it, and asks again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from app.wire.frames import Limits, Standing, attached_frame, live_frame


class Tail(Protocol):
    """What a reader needs of a feed: the newest records of a log, after `floor`, up to `head`."""

    @property
    def head(self) -> int: ...
    @property
    def floor(self) -> int: ...
    def frame(self, after: int) -> tuple[int, str] | None: ...


@dataclass(frozen=True, slots=True)
class Behind:
    """The cursor is before what the feed still holds: read the log after it, as it was at `head` or later, and `take`
    the page."""

    after: int
    head: int = 0


class Reader:
    """One reader's cursor. `after`: the client's cursor, any integer; `log`: the log it belongs to, if it said so."""

    def __init__(self, standing: Standing, after: int, log: str | None) -> None:
        self.reset = (log is not None and log != standing.log) or after > standing.head
        self.cursor = 0 if self.reset else max(after, 0)
        self.live = False
        self._standing = standing
        self._known = standing.head

    def attached(self, conversation: str, viewer: dict[str, str], limits: Limits, now: int) -> str:
        """The first frame."""
        return attached_frame(
            conversation, self._standing, after=self.cursor, reset=self.reset, viewer=viewer, limits=limits, now=now
        )

    def pull(self, tail: Tail) -> str | Behind | None:
        """The next frame, or where to read, or None when the reader is live and up to date."""
        if tail.head < self._known and self.cursor < self._known:
            # The feed is yet to hear of what is durable, and may hold pieces of which this reader was not shown the
            # first ones, because they are superseded by then: it stays with the log.
            return Behind(self.cursor, self._known)
        if self.cursor < tail.floor:
            return Behind(self.cursor)
        if (next_frame := tail.frame(self.cursor)) is not None:
            self.cursor, frame = next_frame
            return frame
        if not self.live:
            self.live = True
            return live_frame(self.cursor)
        return None

    def take(self, through: int, frame: str, head: int) -> str:
        """The frame of the page of the log that follows the cursor; the log stood at `head` when it was read."""
        self.cursor, self._known = through, max(self._known, head)
        return frame
