"""The part of `apply` that happens inside a level: attempts, replies, calls, approvals, doubts, sub-agents."""

from __future__ import annotations

from app.core import events as e
from app.core.codec import hashed
from app.core.events import Event, Usage
from app.core.state import Decided, DeniedCall, Level, OpenCall, Run, State, Words

FLUSH_STEPS = 20
"""A long run is written to the archive every so many steps."""

AT_LEVEL = (
    e.StepStarted | e.ModelReplied | e.ModelInterrupted | e.ModelFailed | e.ToolStarted | e.ToolReturned | e.ToolFailed
    | e.ApprovalRequested | e.ApprovalDecided | e.DoubtRaised | e.DoubtSettled
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
            state.runs[run.run].usage = run.usage
        case e.ModelInterrupted() | e.ModelFailed():
            _attempt_over(level, event)
        case e.ToolStarted():
            call = level.batch[event.call]
            call.started, call.agent = event.seq, event.agent
            if event.agent is not None:
                _open_level(run, level, event)
        case e.ToolReturned() | e.ToolFailed():
            _call_over(state, run, level, event)
        case e.ApprovalRequested() | e.ApprovalDecided():
            _approval(state, run, level, event)
        case e.DoubtRaised() | e.DoubtSettled():
            _doubt(state, run, level, event)


def _step_started(state: State, run: Run, level: Level, event: e.StepStarted) -> None:
    level.step, level.attempt, level.asking = event.step, event.attempt, True
    level.text, level.text_length, level.reasoning, level.reasoning_length = [], 0, [], 0
    level.reply, level.batch, level.retry_at = None, {}, None
    if event.described is not None:
        state.described[level.place] = hashed(event.described)
    if not event.path:
        run.interrupt_seq = None
    run.steps += event.attempt == 1
    record = state.runs[run.run]
    record.step, record.changed = run.top.step, event.seq
    if not event.path and event.attempt == 1 and event.step % FLUSH_STEPS == 0:
        state.flush_due = event.seq


def _replied(run: Run, level: Level, event: e.ModelReplied) -> None:
    level.asking, level.request, level.reply, level.trouble_since = False, None, event, None
    level.history.append(event)
    level.batch = {call.call: OpenCall(call.call, call.tool, call.arguments, call.kept) for call in event.calls}
    level.ids.update(level.batch)
    used, now = run.usage, event.usage
    run.usage = Usage(
        input=used.input + now.input,
        output=used.output + now.output,
        cached=used.cached + now.cached,
        estimated=used.estimated or now.estimated,
    )
    run.crashes = 0
    if not event.path:
        run.last_message, run.last_text = event.message, event.text


def _attempt_over(level: Level, event: e.ModelInterrupted | e.ModelFailed) -> None:
    level.asking, level.request, level.retry_at = False, None, event.retry_at
    if isinstance(event, e.ModelInterrupted) and event.reason in ("cancel", "hint") and event.text:
        level.history.append(event)
    if event.retry_at is not None and level.trouble_since is None:
        level.trouble_since = event.at


def _open_level(run: Run, level: Level, event: e.ToolStarted) -> None:
    """A sub-agent begins with what it was asked, and knows nothing else of the conversation."""
    prompt = Words(
        "prompt", event.call, str(event.arguments.get("prompt", event.arguments)), "agent", event.seq, run.run
    )
    via = (*level.via, event.tool)
    run.levels[(*event.path, event.call)] = Level(level.root, [prompt], via, opened_at=event.at)


def _call_over(state: State, run: Run, level: Level, event: e.ToolReturned | e.ToolFailed) -> None:
    call = level.batch[event.call]
    call.ended, call.approval, call.doubt = True, None, None
    inside = (*event.path, event.call)
    for path in [path for path in run.levels if path[: len(inside)] == inside]:
        del run.levels[path]
    level.history.append(event)
    run.crashes = 0
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
    call.approval = None
    if event.arguments is not None:
        call.arguments, call.kept = event.arguments, None
        level.history.append(event)  # the model is told
    if event.decision in ("denied", "expired"):
        run.denied = DeniedCall(event.path, call.call, call.tool, call.asked)
    if event.always:
        state.always.add((*level.via, call.tool))
    decided = Decided(event.decision, event.by, event.at, event.arguments)
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
