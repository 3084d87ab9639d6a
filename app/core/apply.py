"""`apply(state, event)`: what happened.

Folding a log gives the state; folding it further gives the next one; the client's fold (static/fold.js) mirrors what
of it a reader sees. `apply` changes its state in place and never refuses: a log is a list of facts.
"""

from __future__ import annotations

from collections.abc import Iterable

from app.core import events as e
from app.core.apply_level import AT_LEVEL, apply_at_level, apply_streamed
from app.core.events import Event, Path
from app.core.run_record import LevelRecord, RunRecord
from app.core.state import CEILINGS, Level, Run, State, Stop, Words


def fold(events: Iterable[Event], state: State | None = None) -> State:
    """The state after these events, from nothing or from a state (which is changed)."""
    state = state or State()
    for event in events:
        apply(state, event)
    return state


def apply(state: State, event: Event) -> None:
    """Takes one event into the state."""
    before, state.seq, state.at = state.at, event.seq, event.at
    if event.cause is not None:
        state.receipts.setdefault(event.cause, event.seq)
    match event:
        case e.TextStreamed() | e.ReasoningStreamed():
            apply_streamed(_level(state, event), event)
            return
        case e.ToolProgressed() | e.CommandNoted() | e.UnknownEvent():
            return
    state.updated_at = max(state.updated_at, event.at)
    match event:
        case e.ConversationCreated():
            state.agent, state.title, state.owner = event.agent, event.title, event.owner
            state.created_at, state.epoch = event.at, 1
        case e.ConversationRenamed():
            state.title, state.flush_due = event.title, event.seq
        case e.ActorActivated():
            if state.run is not None:
                _left_alone(state.run, event.at - before)
            _activated(state, event)
        case e.ActorDrained():
            state.drained = True
        case e.NoteSaved():
            _note_saved(state, event)
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


def _note_saved(state: State, event: e.NoteSaved) -> None:
    known = [note.note for note in state.notes]
    place = known.index(event.note) if event.note in known else len(known)
    state.notes = [*state.notes[:place], event, *state.notes[place + 1 :]]


def _left_alone(run: Run, by: int) -> None:
    """Nobody owned the run for so long: that is no time of work.

    Less than none: the new owner's clock is behind the one that wrote these times, and what is waited for moves with
    it, so that a wait stays as long. Only what a person was told, when an approval expires, stays what it was.
    """
    if by < 0 or run.status == "running":
        run.held_since += by
    if by >= 0:
        return
    run.slice_since, run.parked_at, run.interrupt_at = run.slice_since + by, run.parked_at + by, run.interrupt_at + by
    run.until = None if run.until is None else run.until + by
    if run.stop is not None:
        run.stop.at += by
    for level in run.levels.values():
        level.retry_at = None if level.retry_at is None else level.retry_at + by
        level.trouble_since = None if level.trouble_since is None else level.trouble_since + by


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
            _deliver(state, event.message, state.run, event.seq)
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


def _deliver(state: State, message: str, run: Run, seq: int) -> None:
    words = _take(state, message)
    words.run, words.told = run.run, seq
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
            run.reason, run.until, run.parked_at = event.reason, event.until, event.at
            run.suspend = None if event.reason == "request" else run.suspend
            state.flush_due = event.seq
        case e.RunResumed():
            _resumed(run, event)
        case e.RunSliced():
            run.slice_since = event.at
        case e.SuspensionRequested():
            run.suspend = event.by
        case e.CancelRequested():
            run.stop = Stop(event.by, event.at, event.seq, event.error)
        case e.RunCompleted() | e.RunFailed() | e.RunCancelled() | e.RunMoved():
            state.run = None
            state.flush_due = event.seq
    _record(state, run, event)


def _resumed(run: Run, event: e.RunResumed) -> None:
    run.status, run.reason, run.until, run.slice_since = "running", None, None, event.at
    run.ceilings.update((of, given) for of in CEILINGS if (given := getattr(event, of)) is not None)
    for level in run.levels.values():
        level.trouble_since = None
        level.too_long = level.overflows = level.context.refused = 0
    if event.reason not in ("request", "hint"):  # it goes on where it was; the time that it was parked does not count
        run.held_since += max(0, event.at - run.parked_at)
        return
    run.suspend = None
    run.held_since, run.held_steps = event.at, run.steps
    for level in run.levels.values():
        level.repeats = 0


def _run_started(state: State, event: e.RunStarted) -> None:
    assert event.run is not None
    levels: dict[Path, Level] = {(): Level(event.agent, state.history, state.context, opened_at=event.at)}
    state.context.refused = 0  # a new run tries anew
    run = Run(event.run, event.agent, event.message, event.at, levels, held_since=event.at, slice_since=event.at)
    state.run = run
    record = RunRecord(run.run, event.agent, "running", event.at, event.seq, levels={(): LevelRecord(event.agent)})
    state.runs[run.run] = record
    state.queue, state.carried = state.carried + state.queue, []
    _deliver(state, event.message, run, event.seq)
    for words in [words for words in state.queue if words.kind == "hint"]:
        _deliver(state, words.message, run, event.seq)


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
            record.status, record.finished_at, record.moved = "moved", event.at, event


def _level(state: State, event: Event) -> Level:
    assert state.run is not None
    return state.run.levels[event.path]
