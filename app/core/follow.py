"""What follows by itself: step boundaries, the ends of runs, the next run.

After every command the state is asked what is due now, until nothing is. A first step, a step after tools, one after an
approval, a retry, a hint, a crash or a resume all pass through `_boundary`; every end of a run passes through `close`.
No path of its own for any of them.
"""

from __future__ import annotations

from app.core import events as e
from app.core.bounds import CHILDREN_MAX, DEPTH_MAX, LEVELS_MAX, RESULT_CHARS_MAX
from app.core.budget import Reached, reached
from app.core.calls import shown_arguments
from app.core.catalogue import Rules
from app.core.compaction import compact
from app.core.endings import denied, fail, given_up, stop
from app.core.events import Failure, Path
from app.core.ledger import Ledger
from app.core.request import begin_attempt
from app.core.state import Level, OpenCall, Run, Words
from app.core.summarising import Place
from app.core.window import measure


def follow(ledger: Ledger, rules: Rules) -> None:
    """Emits all that is due at the ledger's time."""
    while _due(ledger, rules):
        pass


def _due(ledger: Ledger, rules: Rules) -> bool:
    """Emits the next thing that is due; False when nothing is."""
    run, at = ledger.state.run, ledger.stamp.at
    if run is None:
        return not rules.draining and _start_next(ledger)
    if run.stop is not None:
        over = at >= run.stop.at + rules.grace_ms or not any(call.runs for _, call in run.calls)
        return over and stop(ledger, run, run.stop.by, run.stop.error, rules)
    if _expired(ledger, run, rules) or _interrupted(ledger, run, rules):
        return True
    if run.status != "running":
        return _resumable(ledger, run, rules)
    for path, level in run.inmost:
        if not level.busy and (level.retry_at is None or at >= level.retry_at):
            if level.open_calls:
                if _open_sub_agent(ledger, run, path, level, rules):
                    return True
            elif _boundary(ledger, run, path, level, rules):
                return True
    return _suspend_for_person(ledger, run, rules)


# --- between steps


def _boundary(ledger: Ledger, run: Run, path: Path, level: Level, rules: Rules) -> bool:
    """Every call has its result: end the level, suspend the run, or begin the next step."""
    hints = [words for words in ledger.state.queue if words.kind == "hint" and not path]
    over = reached(run, level, rules, ledger.stamp.at)
    if level.reply is not None and not level.reply.calls and (not hints or over or _no_answer(level.reply)):
        return _end_level(ledger, run, path, level, level.reply, hints, rules)
    if level.bad_steps >= rules.bad_calls_max:
        message = f"The model asked {level.bad_steps} times in a row for calls that cannot run."
        return fail(ledger, run, Failure(kind="bad_calls", message=message), rules)
    if rules.draining or (level.step == 0 and not path and not rules.admit):
        return False
    again = level.step > 0 and level.reply is None
    if suspension := _suspension(run, rules, over, again=again):
        if at_rest(run, ledger.stamp.at, rules):
            ledger.emit(suspension)
        return run.status == "suspended"
    model = model_name(level, rules)
    now = measure(ledger.state, path, rules)
    fitting = compact(Place(ledger, run, path, level, rules), now, model)
    if fitting == "full" and at_rest(run, ledger.stamp.at, rules):
        ledger.emit(e.RunSuspended(run=run.run, reason="context", message=now.why_full(level.context)))
    if fitting != "fits":
        return fitting == "compacted" or run.status == "suspended"
    if rules.slice_ms is not None and run.steps > 0 and ledger.stamp.at - run.slice_since >= rules.slice_ms:
        ledger.emit(e.RunSliced(run=run.run))
    step, attempt = (level.step, level.attempt + 1) if again else (level.step + 1, 1)
    for words in hints:
        ledger.emit(e.HintApplied(run=run.run, message=words.message, step=step))
    begin_attempt(ledger, run.run, path, (step, attempt), model, now.asked, rules)
    return True


def _end_level(
    ledger: Ledger, run: Run, path: Path, level: Level, reply: e.ModelReplied, hints: list[Words], rules: Rules
) -> bool:
    """The final answer: of the run at the top, of the call that opened the level below it."""
    failure = _no_answer(reply)
    if not path:
        return fail(ledger, run, failure, rules) if failure else _complete(ledger, run, reply, hints)
    outer, call, ms = path[:-1], path[-1], ledger.stamp.at - level.opened_at
    if failure is not None:
        error = Failure(kind="error", message=failure.message)
        ledger.emit(e.ToolFailed(run=run.run, path=outer, call=call, error=error, ms=ms))
    else:
        text, truncated = reply.text[:RESULT_CHARS_MAX], len(reply.text) > RESULT_CHARS_MAX
        ledger.emit(e.ToolReturned(run=run.run, path=outer, call=call, result=text, ms=ms, truncated=truncated))
    return True


def _open_sub_agent(ledger: Ledger, run: Run, path: Path, level: Level, rules: Rules) -> bool:
    """Opens the level of the next call that is a sub-agent's, if there is room for it."""
    at_work = sum(call.agent is not None for call in level.open_calls)
    for call in level.open_calls:
        spec = rules.tool(level, call.tool)
        if spec is None or spec.agent is None or call.waits or call.started is not None or rules.draining:
            continue
        if (deep := len(path) >= DEPTH_MAX) or len(run.levels) >= LEVELS_MAX:
            many = "There are too many sub-agents in this run already."
            error = Failure(kind="error", message="Sub-agents are not nested deeper than this." if deep else many)
            ledger.emit(e.ToolFailed(run=run.run, path=path, call=call.call, error=error))
            return True
        if at_work < CHILDREN_MAX:
            ledger.emit(
                e.ToolStarted(
                    run=run.run,
                    path=path,
                    call=call.call,
                    tool=call.tool,
                    arguments=shown_arguments(call),
                    truncated=call.kept is not None,
                    agent=spec.agent.name,
                )
            )
            return True
    return False


def _suspension(run: Run, rules: Rules, over: Reached | None, *, again: bool) -> e.RunSuspended | None:
    """Why the run is parked instead of taking its next step. A retry is no new step."""
    if run.suspend is not None:
        return e.RunSuspended(run=run.run, reason="request")
    if over is not None:
        return e.RunSuspended(run=run.run, reason="budget", of=over.of, ceiling=over.ceiling, used=over.used)
    if rules.turns is not None and not again and run.steps - run.held_steps >= rules.turns:
        return e.RunSuspended(run=run.run, reason="turns")
    return None


def model_name(level: Level, rules: Rules) -> str:
    agent = rules.agent(level)
    return (agent.model if agent else None) or rules.model


def _no_answer(reply: e.ModelReplied) -> Failure | None:
    if reply.finish == "content_filter":
        return Failure(kind="content_filter", message="The provider withheld the answer (content filter).")
    if not reply.text.strip():
        return Failure(kind="empty_answer", message="The model ended without an answer.")
    return None


def _complete(ledger: Ledger, run: Run, reply: e.ModelReplied, hints: list[Words]) -> bool:
    if hints:
        into = ledger.fresh_id()
        for words in hints:
            ledger.emit(e.HintCarried(run=run.run, message=words.message, into=into))
    steps, ms = run.top.step, ledger.stamp.at - run.started_at
    ledger.emit(e.RunCompleted(run=run.run, message=reply.message, usage=run.usage, steps=steps, ms=ms))
    return True


# --- waiting and going on


def at_rest(run: Run, at: int, rules: Rules) -> bool:
    """Nothing is asked, nothing runs, no retry is to come: what is open is a person's, or a step boundary."""
    if any(level.busy or (level.retry_at or 0) > at for level in run.levels.values()):
        return False
    return all(call.waits or call.agent is not None or _no_room(run, path, call, rules) for path, call in run.calls)


def _goes_on(run: Run, at: int, rules: Rules) -> bool:
    """Whether something is at work, or a level has all its results and may take its next step."""
    return not at_rest(run, at, rules) or any(not level.open_calls for level in run.levels.values())


def _no_room(run: Run, path: Path, call: OpenCall, rules: Rules) -> bool:
    """Whether this call is a sub-agent's that waits for another one to end."""
    level = run.levels[path]
    spec = rules.tool(level, call.tool)
    sub_agent = spec is not None and spec.agent is not None and call.started is None
    return sub_agent and sum(other.agent is not None for other in level.open_calls) >= CHILDREN_MAX


def _suspend_for_person(ledger: Ledger, run: Run, rules: Rules) -> bool:
    """The run waits as soon as nothing runs and every open call is a person's to decide."""
    if not any(call.waits for _, call in run.calls) or _goes_on(run, ledger.stamp.at, rules):
        return False
    ledger.emit(e.RunSuspended(run=run.run, reason=run.waits_for))
    return True


def _resumable(ledger: Ledger, run: Run, rules: Rules) -> bool:
    if run.status == "waiting":
        if any(call.waits for _, call in run.calls) and not _goes_on(run, ledger.stamp.at, rules):
            return False
        ledger.emit(e.RunResumed(run=run.run, reason=run.reason or "approval", by=ledger.stamp.by or None))
        return True
    if run.reason == "retry" and run.until is not None and ledger.stamp.at >= run.until:
        ledger.emit(e.RunResumed(run=run.run, reason="retry"))
        return True
    return False


def _expired(ledger: Ledger, run: Run, rules: Rules) -> bool:
    """Expiry counts as denial."""
    for path, call in run.calls:
        request = call.approval
        if request and request.expires_at is not None and ledger.stamp.at >= request.expires_at:
            id = call.call
            ledger.emit(e.ApprovalDecided(run=run.run, path=path, call=id, decision="expired", by="clock"))
            denied(ledger, run, path, id, "Nobody approved this call in time.", rules)
            return True
    return False


def _interrupted(ledger: Ledger, run: Run, rules: Rules) -> bool:
    """Tools that an interrupting hint has stopped, but that did not confirm it in time."""
    if run.interrupt_seq is None or ledger.stamp.at < run.interrupt_at + rules.grace_ms:
        return False
    late = [(path, call) for path, call in run.calls if is_interrupted(run, path, call, rules)]
    for path, call in late:
        ledger.emit(given_up(run, path, call, rules))
    return bool(late)


def is_interrupted(run: Run, path: Path, call: OpenCall, rules: Rules) -> bool:
    """Whether an interrupting hint stops this running call: it is for the top-level agent, so it stops its tools."""
    if path or run.interrupt_seq is None or not call.runs or (call.started or 0) > run.interrupt_seq:
        return False
    spec = rules.tool(run.top, call.tool)
    return spec is not None and spec.interruptible


def _start_next(ledger: Ledger) -> bool:
    """The next run: all carried hints together, else the oldest queued prompt."""
    state = ledger.state
    first = next(iter(state.carried or state.queue), None)
    if first is None:
        return False
    run = first.run or ledger.fresh_id()
    ledger.emit(e.RunStarted(run=run, agent=state.agent, message=first.message))
    return True
