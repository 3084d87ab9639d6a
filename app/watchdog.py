"""Watches the event loop from a thread of its own: a loop that is blocked says so in the log, with what blocks it.

Nothing is cut off: the culprit is somebody's function, and the log names the line (FAULTS.md 25).
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

logger = logging.getLogger(__name__)

BLOCKED_SECONDS = 5.0
"""So long may the loop be busy with one thing before that is reported, once per time that it happens."""

BEAT_SECONDS = 1.0


class Stalls:
    """How often the loop has been reported as blocked."""

    count = 0


@contextmanager
def watching(loop: asyncio.AbstractEventLoop, blocked_seconds: float = BLOCKED_SECONDS) -> Iterator[Stalls]:
    """Watches the loop of the calling thread while the block runs."""
    stalls = Stalls()
    watched = threading.get_ident()
    over = threading.Event()
    beaten = [time.monotonic()]

    def beat() -> None:
        beaten[0] = time.monotonic()

    def watch() -> None:
        reported = 0.0
        while not over.wait(min(BEAT_SECONDS, blocked_seconds / 2)):
            if time.monotonic() - beaten[0] > blocked_seconds and beaten[0] != reported:
                reported = beaten[0]
                stalls.count += 1
                stack = "".join(traceback.format_stack(sys._current_frames().get(watched)))
                logger.error("the event loop has been blocked for %g s by:\n%s", blocked_seconds, stack)
            loop.call_soon_threadsafe(beat)

    thread = threading.Thread(target=watch, name="holdfast-watchdog", daemon=True)
    thread.start()
    try:
        yield stalls
    finally:
        over.set()
        thread.join()
