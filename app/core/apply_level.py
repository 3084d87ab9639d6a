"""The part of `apply` that happens inside a level: attempts, replies, calls, approvals, doubts, sub-agents."""

from __future__ import annotations

from app.core import events as e
from app.core.bounds import LEVELS_LISTED_MAX
from app.core.codec import hashed
from app.core.context import index
from app.core.events import Event, Path, Usage
from app.core.run_record import DeniedCall, LevelRecord
from app.core.servers import go_by, pin, told_of
from app.core.state import Decided, Level, OpenCall, Run, State, Words
from app.core.usage import added, tokens

FLUSH_STEPS = 20
"""A long run is written to the archive every so many steps."""

AT_LEVEL = (
    e.StepStarted | e.ModelReplied | e.ModelInterrupted | e.ModelFailed | e.ToolStarted | e.ToolReturned | e.ToolFailed
    | e.ApprovalRequested | e.ApprovalDecided | e.DoubtRaised | e.DoubtSettled
    | e.CompactionStarted | e.CompactionFailed | e.ContextCompacted
)  # fmt: skip


def apply_streamed(level: Level, event: e.TextStreamed | e.ReasoningStreamed) -> None:
    """Takes a piece of text into its attempt."""
    if isinstance(event, e.TextStreamed):
        level.text.append(event.text)
        level.text_length += len(event.text)
    else:
        level.reasoning.append(event.text)
        level.reasoning_length += len(event.text)


def apply_at_level(state: State, run: Run, level: Level, event: Event) -> None:
    """Takes an event of a level into it."""
    match event:
        case e.StepStarted():
            _step_started(state, run, level, event)
        case e.ModelReplied():
            _replied(run, level, event)
            count(state, run, event.path, event.usage)
        case e.ModelInterrupted() | e.ModelFailed():
            _attempt_over(level, event)
            if isinstance(event, e.ModelInterrupted) and event.usage is not None:
                count(state, run, event.path, event.usage)
        case e.ToolStarted():
            call = level.batch[event.call]
            call.started, call.agent = event.seq, event.agent
            if event.agent is not None:
                _open_level(state, run, level, event)
        case e.ToolReturned() | e.ToolFailed():
            _call_over(state, run, level, event)
        case e.ApprovalRequested() | e.ApprovalDecided():
            _approval(state, run, level, event)
        case e.DoubtRaised() | e.DoubtSettled():
            _doubt(state, run, level, event)
        case e.CompactionStarted():
            level.compacting, level.summaries, level.retry_at = event, event.attempt, None
        case e.CompactionFailed():
            level.compacting, level.retry_at = None, event.retry_at
            level.overflows += event.error.kind == "context"
            if event.retry_at is not None and level.trouble_since is None:
                level.trouble_since = event.at
        case e.ContextCompacted():
            _compacted(state, run, level, event)


def _step_started(state: State, run: Run, level: Level, event: e.StepStarted) -> None:
    level.step, level.attempt, level.asking, level.notes = event.step, event.attempt, True, state.notes
    level.text, level.text_length, level.reasoning, level.reasoning_length = [], 0, [], 0
    level.reply, level.batch, level.retry_at, level.model = None, {}, None, event.model
    level.asked, level.overflows = event.asked, 0
    level.too_long = level.too_long if event.attempt > 1 else 0
    if event.described is not None:
        state.described[level.place] = hashed(event.described)
        state.told[level.place] = told_of(event.described)
    if level.told is None:
        pin(state, level)
    if not event.path:
        run.interrupt_seq = None
    record = state.runs[run.run]
    run.steps += event.attempt == 1
    record.level(event.path).steps += event.attempt == 1
    record.step, record.changed = run.top.step, event.seq
    if not event.path and event.attempt == 1 and event.step % FLUSH_STEPS == 0:
        state.flush_due = event.seq


def _replied(run: Run, level: Level, event: e.ModelReplied) -> None:
    level.asking, level.request, level.reply, level.trouble_since = False, None, event, None
    level.history.append(event)
    level.batch = {call.call: OpenCall(call.call, call.tool, call.arguments, call.kept) for call in event.calls}
    level.ids.update(level.batch)
    if not event.usage.estimated:
        level.context.asked, level.context.input = level.asked, event.usage.input
    batch = frozenset((call.tool, call.arguments) for call in event.calls)
    level.repeats = 0 if not batch else level.repeats + 1 if batch == level.repeated else 1
    level.repeated, level.last = batch, event.usage
    run.called += len(event.calls)
    run.least = event.usage if run.least is None else min(run.least, event.usage, key=tokens)
    run.crashes = 0
    if not event.path:
        run.last_message, run.last_text = event.message, event.text


def count(state: State, run: Run, path: Path, usage: Usage) -> None:
    """Adds what a call took to its run and its level."""
    record = state.runs[run.run]
    record.usage = run.usage = added(run.usage, usage)
    spent = record.level(path)
    spent.usage = added(spent.usage, usage)


def _attempt_over(level: Level, event: e.ModelInterrupted | e.ModelFailed) -> None:
    level.asking, level.request, level.retry_at = False, None, event.retry_at
    if isinstance(event, e.ModelInterrupted) and event.reason in ("cancel", "hint") and event.text:
        level.history.append(event)
    if event.error is not None and event.error.kind == "context":
        level.too_long += 1
        level.context.refused = min(level.context.refused or level.asked, level.asked)
    if event.retry_at is not None and level.trouble_since is None:
        level.trouble_since = event.at


def _compacted(state: State, run: Run, level: Level, event: e.ContextCompacted) -> None:
    context = level.context
    if event.kind == "references":
        context.shortened.update({one.of: one.chars for one in event.shortened})
        context.refers = True
    else:
        context.through, context.summary, context.words = event.to, event.summary, event.words
        context.refers = context.refers or bool(index(level.history, context))
        level.compacting, level.summaries, level.trouble_since = None, 0, None
    level.last = None  # the next call is not expected to take what the last one took
    if event.usage is not None:
        count(state, run, event.path, event.usage)
    run.crashes = 0


def _open_level(state: State, run: Run, level: Level, event: e.ToolStarted) -> None:
    """A sub-agent begins with what it was asked, and knows nothing else of the conversation."""
    prompt = Words(
        "prompt",
        event.call,
        str(event.arguments.get("prompt", event.arguments)),
        "agent",
        event.seq,
        run.run,
        event.seq,
    )
    via = (*level.via, event.tool)
    path = (*event.path, event.call)
    run.levels[path] = Level(level.root, [prompt], via=via, opened_at=event.at)
    listed = state.runs[run.run].levels
    if len(listed) < LEVELS_LISTED_MAX:
        listed[path] = LevelRecord(event.agent or "")


def _call_over(state: State, run: Run, level: Level, event: e.ToolReturned | e.ToolFailed) -> None:
    call = level.batch[event.call]
    call.ended, call.approval, call.doubt = True, None, None
    inside = (*event.path, event.call)
    for path in [path for path in run.levels if path[: len(inside)] == inside]:
        del run.levels[path]
    level.history.append(event)
    run.crashes = 0
    if isinstance(event, e.ToolReturned) and event.truncated:
        level.context.refers = True
    if isinstance(event, e.ToolFailed):
        if call.started is not None and event.error.kind in ("in_doubt", "timeout", "cancelled"):
            state.given_up.add((run.run, event.path, event.call))
        if event.error.kind in ("bad_arguments", "unknown_tool"):
            level.bad_steps += level.bad_step != level.step
            level.bad_step = level.step
            return
    level.bad_steps = 0


def _approval(state: State, run: Run, level: Level, event: e.ApprovalRequested | e.ApprovalDecided) -> None:
    call = level.batch[event.call]
    if isinstance(event, e.ApprovalRequested):
        call.approval = event
        return
    digest = None if call.approval is None else call.approval.digest
    call.approval = None
    if event.arguments is not None:
        call.arguments, call.kept = event.arguments, None
        level.history.append(event)  # the model is told
    if event.decision in ("denied", "expired"):
        run.denied = DeniedCall(event.path, call.call, call.tool, call.asked)
    if event.decision == "approved":
        go_by(state, level, call.tool)
    if event.always:
        state.always.add((*level.via, call.tool))
    decided = Decided(event.decision, event.by, event.at, event.arguments, digest)
    state.decisions[run.run, event.path, event.call] = decided


def _doubt(state: State, run: Run, level: Level, event: e.DoubtRaised | e.DoubtSettled) -> None:
    call = level.batch[event.call]
    if isinstance(event, e.DoubtRaised):
        call.doubt = event
        return
    call.doubt = None
    call.started = None if event.outcome == "rerun" else call.started
    call.tries += 1
    state.decisions[run.run, event.path, event.call] = Decided(event.outcome, event.by, event.at)
