"""`apply(state, event)`: what happened.

Folding a log gives the state; folding it further gives the next one; the client's fold (static/fold.js) mirrors what
of it a reader sees. `apply` changes its state in place and never refuses: a log is a list of facts.
"""

from __future__ import annotations

from collections.abc import Iterable

from app.core import events as e
from app.core.apply_level import AT_LEVEL, apply_at_level, apply_streamed
from app.core.events import Event, Path
from app.core.state import Level, Run, RunRecord, State, Stop, Words


def fold(events: Iterable[Event], state: State | None = None) -> State:
    """The state after these events, from nothing or from a state (which is changed)."""
    state = state or State()
    for event in events:
        apply(state, event)
    return state


def apply(state: State, event: Event) -> None:
    """Takes one event into the state."""
    state.seq = event.seq
    if event.cause is not None:
        state.receipts.setdefault(event.cause, event.seq)
    match event:
        case e.TextStreamed() | e.ReasoningStreamed():
            apply_streamed(_level(state, event), event)
            return
        case e.ToolProgressed() | e.CommandNoted() | e.ContextCompacted() | e.UnknownEvent():
            return
    state.updated_at = max(state.updated_at, event.at)
    match event:
        case e.ConversationCreated():
            state.agent, state.title, state.owner = event.agent, event.title, event.owner
            state.created_at, state.epoch = event.at, 1
        case e.ConversationRenamed():
            state.title, state.flush_due = event.title, event.seq
        case e.ActorActivated():
            _activated(state, event)
        case e.ActorDrained():
            state.drained = True
        case e.NoteSaved():
            state.notes.append(event)
        case e.AlwaysRevoked():
            state.always = {names for names in state.always if names[-1] != event.tool}
        case e.ArchiveFlushed():
            state.flushed = event.through
        case e.ToolSettled():
            state.given_up.discard((event.of, event.path, event.call))
            state.flush_due = event.seq
        case _ if isinstance(event, _WORDS):
            _words(state, event)
        case _ if state.run is not None and isinstance(event, AT_LEVEL):
            apply_at_level(state, state.run, _level(state, event), event)
        case _:
            _run(state, event)


def _activated(state: State, event: e.ActorActivated) -> None:
    state.epoch = event.epoch
    if state.run and state.run.status == "running" and not state.drained:
        state.run.crashes += 1
    state.drained = False


# --- a person's words

_WORDS = (
    e.PromptGiven | e.PromptQueued | e.PromptWithdrawn | e.PromptDropped
    | e.HintGiven | e.HintApplied | e.HintCarried | e.HintWithdrawn | e.HintDropped
)  # fmt: skip


def _words(state: State, event: Event) -> None:
    match event:
        case e.PromptGiven() | e.PromptQueued():
            state.queue.append(Words("prompt", event.message, event.text, event.author, event.seq))
        case e.HintGiven():
            state.queue.append(Words("hint", event.message, event.text, event.author, event.seq))
            if event.interrupt and state.run:
                state.run.interrupt_seq, state.run.interrupt_at = event.seq, event.at
        case e.HintApplied():
            assert state.run is not None
            _deliver(state, event.message, state.run)
        case e.HintCarried():
            words = _take(state, event.message)
            words.run = event.into
            state.carried.append(words)
        case e.PromptWithdrawn() | e.HintWithdrawn() | e.PromptDropped() | e.HintDropped():
            _take(state, event.message)


def _take(state: State, message: str) -> Words:
    words = next(words for words in state.queue if words.message == message)
    state.queue.remove(words)
    return words


def _deliver(state: State, message: str, run: Run) -> None:
    words = _take(state, message)
    words.run = run.run
    state.delivered.add(message)
    run.top.history.append(words)


# --- the run


def _run(state: State, event: Event) -> None:
    if isinstance(event, e.RunStarted):
        _run_started(state, event)
        return
    run = state.run
    if run is None:
        return
    match event:
        case e.RunSuspended():
            run.status = "waiting" if event.reason in ("approval", "in_doubt") else "suspended"
            run.reason, run.until = event.reason, event.until
            run.suspend = None if event.reason == "request" else run.suspend
            state.flush_due = event.seq
        case e.RunResumed():
            run.status, run.reason, run.until = "running", None, None
            run.suspend = None if event.reason in ("request", "hint") else run.suspend
            run.tokens_max, run.steps_max = event.tokens or run.tokens_max, event.steps or run.steps_max
            run.held_since, run.held_steps, run.slice_since = event.at, run.steps, event.at
            for level in run.levels.values():
                level.trouble_since = None
        case e.RunSliced():
            run.slice_since = event.at
        case e.SuspensionRequested():
            run.suspend = event.by
        case e.CancelRequested():
            run.stop = Stop(event.by, event.at, event.seq)
        case e.RunCompleted() | e.RunFailed() | e.RunCancelled() | e.RunMoved():
            state.run = None
            state.flush_due = event.seq
    _record(state, run, event)


def _run_started(state: State, event: e.RunStarted) -> None:
    assert event.run is not None
    levels: dict[Path, Level] = {(): Level(event.agent, state.history, opened_at=event.at)}
    run = Run(event.run, event.agent, event.message, event.at, levels, held_since=event.at, slice_since=event.at)
    state.run = run
    state.runs[run.run] = RunRecord(run.run, event.agent, "running", event.at, event.seq)
    state.queue, state.carried = state.carried + state.queue, []
    _deliver(state, event.message, run)
    for words in [words for words in state.queue if words.kind == "hint"]:
        _deliver(state, words.message, run)


def _record(state: State, run: Run, event: Event) -> None:
    record = state.runs[run.run]
    record.changed, record.step, record.usage = event.seq, run.top.step, run.usage
    record.status = run.status
    match event:
        case e.RunCompleted():
            record.status, record.finished_at, record.result = "completed", event.at, run.last_text
        case e.RunFailed():
            record.status, record.finished_at, record.error = "failed", event.at, event.error
            record.denied = run.denied if event.error.kind == "denied" else None
        case e.RunCancelled():
            record.status, record.finished_at = "cancelled", event.at
        case e.RunMoved():
            record.status, record.finished_at = "moved", event.at


def _level(state: State, event: Event) -> Level:
    assert state.run is not None
    return state.run.levels[event.path]
