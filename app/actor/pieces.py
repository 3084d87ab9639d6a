"""Streamed text on its way to the log: what comes while a commit is under way gathers, and goes with the next one.

The first piece leaves at once, then at most `per_second` of them; load makes pieces larger, not later ones endless.
Whoever produces faster than the log takes waits in `room`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

GATHERED_CHARS_MAX = 65_536
"""What may gather before the producer has to wait."""


class Pieces:
    """Gathers `(text, reasoning)` and hands it to `send`, whose future is done when it is durable."""

    def __init__(self, send: Callable[[str, str], asyncio.Future[Any]], per_second: float) -> None:
        self._send = send
        self._pause = 1 / per_second
        self._loop = asyncio.get_running_loop()
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._size = 0
        self._sent_at = float("-inf")
        self._under_way = False
        self._timer: asyncio.TimerHandle | None = None
        self._room = asyncio.Event()
        self._room.set()

    def add(self, text: str, reasoning: str = "") -> None:
        if text:
            self._text.append(text)
        if reasoning:
            self._reasoning.append(reasoning)
        self._size += len(text) + len(reasoning)
        if self._size > GATHERED_CHARS_MAX:
            self._room.clear()
        self._offer()

    @property
    def crowded(self) -> bool:
        """Whether the producer should wait."""
        return not self._room.is_set()

    async def room(self) -> None:
        """Waits until the log has caught up enough."""
        await self._room.wait()

    def stop(self) -> None:
        """Sends no more: the end of the attempt says the rest."""
        if self._timer is not None:
            self._timer.cancel()
        self._under_way = True
        self._size = 0
        self._room.set()

    def _offer(self) -> None:
        if self._under_way or self._timer is not None or not self._size:
            return
        wait = self._sent_at + self._pause - self._loop.time()
        if wait > 0:
            self._timer = self._loop.call_later(wait, self._timed)
            return
        text, reasoning = "".join(self._text), "".join(self._reasoning)
        self._text.clear()
        self._reasoning.clear()
        self._size = 0
        self._room.set()
        self._under_way, self._sent_at = True, self._loop.time()
        self._send(text, reasoning).add_done_callback(self._committed)

    def _timed(self) -> None:
        self._timer = None
        self._offer()

    def _committed(self, _: asyncio.Future[Any]) -> None:
        if self._timer is None:
            self._under_way = False
            self._offer()
