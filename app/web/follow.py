"""One reader of one conversation, whatever carries it: from `attached` through replay to live, as a stream of frames.

The socket and the event stream differ only in how they send; what is sent, when, and the heartbeat is here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from app.actor.directory import Directory
from app.actor.feed import Feed
from app.store.event_log import Unavailable
from app.web.access import Principal
from app.wire.close_codes import DELETED, SERVICE_RESTART
from app.wire.frames import Limits, heartbeat_frame, standing
from app.wire.reader import Behind, Reader

Send = Callable[[str], Awaitable[None]]


class Follower:
    """Brings one reader forward until it is cancelled or its feed ends; `run` returns the close code."""

    def __init__(self, directory: Directory, limits: Limits, clock: Callable[[], int]) -> None:
        self._directory = directory
        self._limits = limits
        self._clock = clock
        self.attached = asyncio.Event()
        """Set once the first frame is out; whatever else is to be said waits for it."""
        self._wake = asyncio.Event()
        self._feed: Feed | None = None
        self._sent_at = 0.0

    async def run(self, conversation: str, viewer: Principal, after: int, log: str | None, send: Send) -> int:
        """Raises KeyError where there is no such conversation."""
        feed = self._feed = await self._directory.feed(conversation)
        feed.join(self._wake.set)
        try:
            state = await self._directory.ask(conversation, lambda state: standing(state, feed.log))
            reader = Reader(state, after, log)
            who = {"id": viewer.id, "role": viewer.role}
            await self._send(send, reader.attached(conversation, who, self._limits, self._clock()))
            self.attached.set()
            return await self._follow(feed, reader, send)
        finally:
            feed.leave(self._wake.set)

    async def pong(self, send: Send) -> None:
        """The heartbeat that a reader has asked for."""
        await self._send(send, heartbeat_frame(self._feed.head if self._feed else 0, self._clock()))

    async def _follow(self, feed: Feed, reader: Reader, send: Send) -> int:
        while True:
            self._wake.clear()
            while feed.closed != DELETED and (frame := reader.pull(feed)) is not None:
                if isinstance(frame, Behind):
                    try:
                        frame = reader.take(*await feed.pages.after(frame.after, frame.head))
                    except (KeyError, Unavailable):
                        return SERVICE_RESTART
                await self._send(send, frame)
            if feed.closed is not None:
                return feed.closed
            await self._rest(reader, send)

    async def _rest(self, reader: Reader, send: Send) -> None:
        """Until there may be something to pull; a heartbeat whenever nothing was sent for so long."""
        loop = asyncio.get_running_loop()
        while not self._wake.is_set():
            silence = loop.time() - self._sent_at
            try:
                async with asyncio.timeout(max(0.0, self._limits.heartbeat_seconds - silence)):
                    await self._wake.wait()
            except TimeoutError:
                if loop.time() - self._sent_at >= self._limits.heartbeat_seconds:
                    await self._send(send, heartbeat_frame(reader.cursor, self._clock()))

    async def _send(self, send: Send, frame: str) -> None:
        await send(frame)
        self.sent()

    def sent(self) -> None:
        """Something went out just now."""
        self._sent_at = asyncio.get_running_loop().time()


async def bounded(sending: Awaitable[Any], seconds: float, abort: Callable[[], None]) -> None:
    """Awaits a send for so long at most; then the peer does not read, and its connection is aborted.

    Raises TimeoutError after the abort. Nothing of the peer's backlog is kept: it comes back with its cursor.
    """
    try:
        async with asyncio.timeout(seconds):
            await sending
    except TimeoutError:
        abort()
        raise
