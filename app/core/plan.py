"""`plan(state) → effects`: what should be running right now, and when to ask again.

The plan names the whole wanted set each time. Cancelling is therefore no command to an effect: it is an event after
which the plan no longer wants it. Recovery is no path either: it is the plan of a state that was folded a moment ago.
"""

from __future__ import annotations

from dataclasses import dataclass

from app.core.budget import reached
from app.core.catalogue import Rules
from app.core.effects import Admission, ArchiveFlush, Effect, ModelCall, Summary, ToolCall
from app.core.follow import at_rest, is_interrupted
from app.core.state import Run, State


@dataclass(frozen=True, slots=True)
class Plan:
    """`effects`: all that is wanted, each once, in the order in which to start them.

    `wake_at` (ms): the next time at which something falls due by itself.
    """

    effects: tuple[Effect, ...]
    wake_at: int | None = None


def plan(state: State, rules: Rules) -> Plan:
    """The wanted set of a state."""
    effects: list[Effect] = []
    wakes: list[int] = []
    if state.run is not None:
        effects.extend(_of_run(state.epoch, state.run, rules))
        wakes.extend(_wakes(state.run, rules))
    if state.flush_due > state.flushed:
        effects.append(ArchiveFlush(state.epoch, state.flush_due))
    return Plan(tuple(effects), min(wakes, default=None))


def _of_run(epoch: int, run: Run, rules: Rules) -> list[Effect]:
    if run.stop is not None or run.status == "suspended":
        return []
    wanted: list[Effect] = []
    for path, level in run.levels.items():
        if level.asking:
            wanted.append(ModelCall(epoch, run.run, path, level.step, level.attempt))
        elif level.compacting is not None:
            wanted.append(Summary(epoch, run.run, path, level.compacting.to, level.compacting.attempt))
        elif level.step == 0 and not path and not rules.draining:
            wanted.append(Admission(epoch, run.run))
    for path, call in run.calls:
        spec = rules.tool(run.levels[path], call.tool)
        inside = call.agent is not None or (spec is not None and spec.agent is not None)
        held = inside or (rules.draining and call.started is None)
        if not call.waits and not held and not is_interrupted(run, path, call, rules):
            wanted.append(ToolCall(epoch, run.run, path, call.call, call.tries))
    return wanted


def _retries(run: Run, rules: Rules) -> list[int]:
    """When attempts are tried again; none where nothing would come of it: a time in the past is a wheel that spins."""
    waiting = [(level.retry_at, level) for level in run.levels.values() if level.retry_at is not None]
    if run.status != "running" or rules.draining or not waiting:
        return []
    last = max(at for at, _ in waiting)
    tried = [at for at, level in waiting if run.suspend is None and reached(run, level, rules, at) is None]
    if len(tried) < len(waiting) and at_rest(run, last, rules):  # what is not tried any more is parked after them all
        tried.append(last)
    return tried


def _wakes(run: Run, rules: Rules) -> list[int]:
    """When something of this run falls due by itself."""
    if run.stop is not None:
        return [run.stop.at + rules.grace_ms]
    times = [call.approval.expires_at for _, call in run.calls if call.approval and call.approval.expires_at]
    times += _retries(run, rules)
    if any(is_interrupted(run, path, call, rules) for path, call in run.calls):
        times.append(run.interrupt_at + rules.grace_ms)
    if run.until is not None:
        times.append(run.until)
    return times
