"""FAULTS 23: a clock that jumps an hour, either way, neither fails anything nor delays a wait for an hour."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.actor.clock import SLEW, STEP_MS, Clock, steady_ms, wall_ms
from app.agent import Agent, tool
from app.core import commands as c
from tests.actor.home import BEGAN_MS, Home, busy, calls, virtual

HOUR = 3_600_000


class Times:
    """A wall clock that somebody sets, and a steady one."""

    def __init__(self) -> None:
        self.passed = 0
        self.set = 0
        self.clock = Clock(lambda: BEGAN_MS + self.passed + self.set, lambda: self.passed)

    def after(self, *steps: int) -> int:
        """What the clock says after these times, asked after each."""
        said = self.clock()
        for step in steps:
            self.passed += step
            said = self.clock()
        return said - BEGAN_MS


def test_it_is_the_wall_clock() -> None:
    assert abs(Clock()() - wall_ms()) < 5_000 and steady_ms() <= steady_ms()


def test_time_passes_as_it_does() -> None:
    assert Times().after(1, 2, 3, 10, 1_000) == 1_016


@pytest.mark.parametrize("jump", [HOUR, -HOUR])
def test_a_jump_of_an_hour_is_worked_off(jump: int) -> None:
    """FAULTS 23: a second stays a second, give or take a tenth; some hours later it is as late as the wall says."""
    times = Times()
    times.set = jump
    assert 900 <= times.after(1_000) <= 1_100
    assert times.after(*[60_000] * 60 * SLEW) == 1_000 + HOUR * SLEW + jump


def test_a_gap_of_days_is_followed_at_once() -> None:
    """003-20: the machine was asleep, or had not known the date when it started."""
    times = Times()
    times.set = 3 * STEP_MS
    assert times.after(1_000) == 1_000 + 3 * STEP_MS


@given(st.lists(st.tuples(st.integers(0, 100_000), st.integers(-3 * STEP_MS, 3 * STEP_MS)), max_size=60))
def test_it_never_goes_backwards_and_never_stands_still(lives: Iterable[tuple[int, int]]) -> None:
    """FAULTS 23: whatever is done to the wall."""
    times = Times()
    before = times.clock()
    for passed, shift in lives:
        times.passed += passed
        times.set += shift
        now = times.clock()
        assert now >= before and now - before >= passed - passed // SLEW - 1
        before = now


# --- what hangs on it


class Set:
    """The process's clock over a wall that the test sets; the steady time is the loop's."""

    def __init__(self) -> None:
        self.by = 0
        self.clock = Clock(self._wall, self._steady)

    def _wall(self) -> int:
        return BEGAN_MS + self._steady() + self.by

    def _steady(self) -> int:
        return int(asyncio.get_running_loop().time() * 1000)


@tool
async def stubborn() -> str:
    """Does not care whether it is still wanted."""
    try:
        await asyncio.sleep(10_000)
    except asyncio.CancelledError:
        await asyncio.sleep(10_000)
    return "at last"


@tool(approval=True, expires_in=120)
async def guarded() -> str:
    """Needs approval within two minutes."""
    return "allowed"


async def elapsed(home: Home, conversation: str, kind: str, times: int = 1) -> float:
    """Seconds until this event."""
    began = asyncio.get_running_loop().time()
    await home.until(conversation, kind, times)
    return asyncio.get_running_loop().time() - began


@pytest.mark.parametrize("jump", [HOUR, -HOUR])
@virtual
async def test_a_retry_is_neither_late_nor_lost(jump: int) -> None:
    """FAULTS 23."""
    set_, home = Set(), Home()
    home.boot(clock=set_.clock)
    home.model.lines.extend([[busy(retry_after=30)], ["done"]])
    conversation = await home.create()
    await home.until(conversation, "model.failed")
    set_.by = jump
    assert 20 <= await elapsed(home, conversation, "run.completed") <= 40


@pytest.mark.parametrize("jump", [HOUR, -HOUR])
@virtual
async def test_a_grace_time_is_a_grace_time(jump: int) -> None:
    """FAULTS 23, SEMANTICS §2."""
    set_, home = Set(), Home(Agent("a", tools=[stubborn]))
    home.boot(clock=set_.clock)
    home.model.lines.extend([calls("stubborn")])
    conversation = await home.create()
    await home.until(conversation, "tool.started")
    await home.say(conversation, c.Cancel(id="stop"))
    set_.by = jump
    assert await elapsed(home, conversation, "run.cancelled") <= 3


@pytest.mark.parametrize("jump", [HOUR, -HOUR])
@virtual
async def test_an_approval_expires_when_it_was_said(jump: int) -> None:
    """FAULTS 23, SEMANTICS §4."""
    set_, home = Set(), Home(Agent("a", tools=[guarded]))
    home.boot(clock=set_.clock)
    home.model.lines.extend([calls("guarded")])
    conversation = await home.create()
    await home.until(conversation, "approval.requested")
    set_.by = jump
    assert 100 <= await elapsed(home, conversation, "approval.decided") <= 150


@pytest.mark.parametrize("jump", [HOUR, -HOUR])
@virtual
async def test_a_wait_that_a_process_left_is_as_long_in_the_next_one(jump: int) -> None:
    """FAULTS 23: the next process starts with a clock that is an hour off, and its log is from the future."""
    home = Home(retry_ms=20_000)
    home.model.lines.extend([[busy(retry_after=30)], ["done"]])
    conversation = await home.create()
    await home.until(conversation, "run.suspended")
    home.crash()
    home.boot(clock=lambda: BEGAN_MS + int(asyncio.get_running_loop().time() * 1000) + jump)
    await home.directory.start()
    assert await elapsed(home, conversation, "run.completed") <= 90


@virtual
async def test_003_20_days_between_two_steps() -> None:
    """003-20: decisions after days, a process that was not there meanwhile, a provider that was down: it goes on."""
    home = Home(Agent("a", tools=[guarded_for_ever]))
    home.model.lines.extend([calls("guarded_for_ever"), [busy(retry_after=30)], calls("guarded_for_ever"), ["done"]])
    conversation = await home.create()
    for day in (1, 2):
        await home.until(conversation, "run.suspended", day)
        home.crash()
        await asyncio.sleep(3 * 86_400)
        home.boot()
        await home.directory.start()
        state = await home.state(conversation)
        assert state.run is not None and state.run.status == "waiting"
        [(path, call)] = state.run.calls
        assert call.approval is not None
        where, digest = [*path, call.call], call.approval.digest
        await home.say(conversation, c.Approve(id=f"day{day}", run=state.run.run, call=where, digest=digest))
    ended = await home.until(conversation, "run.completed")
    assert ended["ms"] > 6 * 86_400_000 and ended["steps"] == 3
    assert (await home.types(conversation)).count("tool.returned") == 2


@tool(approval=True)
async def guarded_for_ever() -> str:
    """Needs approval, whenever it comes."""
    return "allowed"
