"""Waiting for a store that cannot answer: the same call again, until it can.

Nothing is lost and no effect is in doubt because a disk was full for a second; whoever must stop waiting is cancelled.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

from app.store.event_log import Unavailable

logger = logging.getLogger(__name__)
T = TypeVar("T")

PAUSES_SECONDS = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
"""Between tries at the most; the last one repeats."""


async def until_stored(attempt: Callable[[], Awaitable[T]], on_failure: Callable[[], None] | None = None) -> T:
    """The result of `attempt`, tried again after each Unavailable; `on_failure` hears of the first one."""
    tries = 0
    while True:
        try:
            return await attempt()
        except Unavailable as error:
            if tries == 0:
                logger.warning("the store is not available, trying on: %s", error)
                if on_failure is not None:
                    on_failure()
        await asyncio.sleep(pause(tries))
        tries += 1


def pause(tries: int) -> float:
    """Seconds to wait after so many tries and one, from half of it on: who failed together does not return together."""
    return PAUSES_SECONDS[min(tries, len(PAUSES_SECONDS) - 1)] * (1 + random.random()) / 2  # noqa: S311


async def answer_of(future: asyncio.Future[T]) -> T:
    """The result of a future that is not ours to cancel; Unavailable where nobody will ever give one."""
    await asyncio.wait({future})
    if future.cancelled():
        raise Unavailable("the conversation was interrupted; send it again")
    return future.result()
