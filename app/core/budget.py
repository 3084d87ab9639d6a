"""The ceilings of a run: steps, tool calls, repeats, seconds, tokens, money. One budget for all of its levels.

Asked before each model call, never in the middle of anything. What a call will take is known afterwards only, so it is
expected to take what the last one of its level took (it sends all of that again), and the first one of a level what the
smallest of the run took; calls that are under way count as expected, so that levels at work at a time cannot go over it
together. A retry is no new step: only what it costs is asked then.
"""

from __future__ import annotations

from dataclasses import dataclass

from app.core import events as e
from app.core.catalogue import Rules
from app.core.state import Level, Run
from app.core.usage import tokens, total


@dataclass(frozen=True, slots=True)
class Reached:
    """A ceiling that a level's next call would cross. Money in millionths."""

    of: e.Ceiling
    ceiling: int
    used: int


def reached(run: Run, level: Level, rules: Rules, at: int) -> Reached | None:
    """The ceiling that keeps a level from its next call at this time, if any does."""
    limits: dict[str, int | None] = {
        "steps": rules.steps_max,
        "calls": rules.calls_max,
        "repeats": rules.repeats_max,
        "seconds": rules.seconds_max,
        "tokens": rules.tokens_max,
        "money": rules.money_max,
    }
    for of, used, next_ in _figures(run, level, at):
        ceiling = run.ceilings.get(of, limits[of])
        if ceiling is not None and (used >= ceiling or used + next_ > ceiling):
            return Reached(of, ceiling, used)
    return None


def _figures(run: Run, level: Level, at: int) -> list[tuple[e.Ceiling, int, int]]:
    """What has been used of each, and what the calls under way and the next one are expected to add."""
    under_way = [other for other in run.levels.values() if other.asking]
    expected = total(usage for one in (*under_way, level) if (usage := one.last or run.least) is not None)
    figures: list[tuple[e.Ceiling, int, int]] = [
        ("tokens", tokens(run.usage), tokens(expected)),
        ("money", run.usage.cost or 0, expected.cost or 0),
    ]
    if level.step > 0 and level.reply is None:
        return figures
    seconds = (at - run.held_since) // 1000 if run.steps else 0
    return [
        ("steps", run.steps, 0),
        ("calls", run.called, 0),
        ("repeats", level.repeats, 0),
        ("seconds", seconds, 0),
        *figures,
    ]
