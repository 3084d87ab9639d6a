"""What time it is: the wall clock as far as durations can bear it.

Every wait of a run is a time in its log, so a clock that somebody sets would make a second of grace last an hour, or
end an approval before it was read. This one goes as a clock goes that nobody can set, never backwards, and works off
what it differs from the wall at a tenth of the time that passes. Only a gap of more than a day forwards, which no
correction makes, is followed at once: the machine was asleep, or had started without knowing the date.
"""

from __future__ import annotations

import time
from collections.abc import Callable

STEP_MS = 86_400_000
"""More than so much behind the wall, the clock follows at once."""

SLEW = 10
"""Less than that is worked off: the clock goes faster or slower by one part in so many."""

SET_BACK_MS = 7_200_000
"""So far the clock of a new process may be behind the one that wrote when something falls due."""

_COUNTS_SLEEP = getattr(time, "CLOCK_BOOTTIME", getattr(time, "CLOCK_MONOTONIC", None))


def wall_ms() -> int:
    return time.time_ns() // 1_000_000


def steady_ms() -> int:
    """A clock that nobody sets; it goes on while the machine sleeps, where there is one that does."""
    counted = time.monotonic_ns() if _COUNTS_SLEEP is None else time.clock_gettime_ns(_COUNTS_SLEEP)
    return counted // 1_000_000


class Clock:
    """Called, it says the time in ms since the Unix epoch; never less than it said before."""

    def __init__(self, wall: Callable[[], int] = wall_ms, steady: Callable[[], int] = steady_ms) -> None:
        self._wall = wall
        self._steady = steady
        self._corrected = steady()
        self._now = wall()

    def __call__(self) -> int:
        passed = self._steady() - self._corrected
        if passed < SLEW:
            return self._now + passed
        self._corrected += passed
        behind = self._wall() - (self._now + passed)
        slack = passed // SLEW
        self._now += passed + (behind if behind > STEP_MS else max(-slack, min(behind, slack)))
        return self._now
