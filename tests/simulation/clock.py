"""A virtual clock: an asyncio loop that never waits. When nothing is ready, time jumps to the next timer.

Days pass in milliseconds, and the same seed gives the same order of everything. Reaches into two private fields of
asyncio's loop, which have been there since 3.4; a world in which nothing can ever happen again raises instead of
hanging.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class Stalled(Exception):
    """Nothing is ready and no timer is set: somebody waits for what will never come."""


class Spinning(Exception):
    """Something is done again and again, and no time passes: on a real clock, a core at 100 %."""


SPINS_MAX = 20_000


class VirtualLoop(asyncio.SelectorEventLoop):
    """`time()` is virtual seconds since the loop was made.

    `step` is called before every single callback: between any two of them is a place where a process may die.
    """

    def __init__(self, step: Callable[[], None] | None = None) -> None:
        super().__init__()
        self._step = step
        self._now = 0.0
        self._spins = 0

    def time(self) -> float:
        return self._now

    def _run_once(self) -> None:
        if not self._ready:  # type: ignore[attr-defined]
            while self._scheduled and self._scheduled[0]._cancelled:  # type: ignore[attr-defined]
                heapq.heappop(self._scheduled)._scheduled = False  # type: ignore[attr-defined]
                self._timer_cancelled_count -= 1  # type: ignore[attr-defined]
            if not self._scheduled:  # type: ignore[attr-defined]
                raise Stalled
            if self._scheduled[0]._when > self._now:  # type: ignore[attr-defined]
                self._now = self._scheduled[0]._when  # type: ignore[attr-defined]
                self._spins = 0
        self._spins += 1
        if self._spins > SPINS_MAX:
            self._spins = 0
            raise Spinning
        if self._step is None:
            super()._run_once()  # type: ignore[misc]
        else:
            self._step()
            self._run_one()

    def _run_one(self) -> None:
        """One callback; the others keep their order."""
        ready = self._ready  # type: ignore[attr-defined]
        later = [ready.pop() for _ in range(len(ready) - 1)]
        super()._run_once()  # type: ignore[misc]
        ready.extendleft(later)


def run(main: Coroutine[Any, Any, T], step: Callable[[], None] | None = None) -> T:
    """Runs a world to its end on a virtual clock."""
    loop = VirtualLoop(step)
    try:
        return loop.run_until_complete(main)
    finally:
        while pending := asyncio.all_tasks(loop):
            for task in pending:
                task.cancel()
            loop.run_until_complete(asyncio.wait(pending, timeout=1))
        loop.close()
